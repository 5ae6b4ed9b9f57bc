# A kernel dies, or power fails, while drivers are frozen and the loaded image names their memory. The kept memory was
# in RAM and is lost. The next boot is an ordinary one, reports that, and can hand over again.

ordinary() {
	[ "$(fact arrival)" = 'none, an ordinary boot' ]
	[ ! -e $sys/in/dt ]
	dmesg | grep -q 'kho: nothing arrived: this was an ordinary boot'
	[ "$(cat $ring/origin)" = new ]
	[ "$(cat $ring/counter)" = 0 ]
	kho status | grep -q 'nothing: this was an ordinary boot'
	kho status | grep -q 'loaded    nothing'
	refused 'nothing arrived' kho restore
	thawed
	[ "$(cat /sys/kernel/kexec_loaded)" = 0 ]
}

panic() {
	echo 1 >/proc/sys/kernel/sysrq
	echo c >/proc/sysrq-trigger
	sleep 100
	false
}

life=$(kho-guest lives)
echo "switched on $life times"
case $KHO_HOP in
0)
	[ $life = 1 ] || ordinary
	ring_add $life
	;;
*)
	kho-guest fill
	ring_is 0 5
	kho status
	exit 0
	;;
esac
case $life in
1)
	kho activate
	frozen
	panic
	;;
2)
	load
	frozen
	panic
	;;
3)
	echo 1 >$sys/active
	frozen
	kho-guest mark cut
	;;
4)
	load
	frozen
	kho-guest mark cut
	;;
esac
