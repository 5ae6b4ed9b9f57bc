# Arrived nodes that no driver took go on, whatever the kernels between know of them. A module that cannot find out what
# arrived touches nothing.

# modes: only root may access the files.
modes() {
	find $sys -type f -exec stat -c '%a %U' {} + | sort -u >/tmp/modes
	fails grep -v -x -e '400 root' -e '600 root' /tmp/modes
	[ "$(find $sys -type d -exec stat -c %a {} + | sort -u)" = 755 ]
}
# unclaimed NODE: the bytes of a node that no driver claimed.
unclaimed() {
	sed -n "s|^/$1 ||p" $sys/release
}

case $KHO_HOP in
0)
	insmod $modules/kho.ko
	modes
	insmod $modules/kho_ring.ko
	ring_add 3
	insmod $modules/kho_test.ko pages=6
	load
	;;
1)
	# Without /proc the module does not know the machine's memory, and refuses to load. Without /sys it does not
	# know what arrived: it does not treat that as an ordinary boot, and touches nothing.
	total=$(mem_total)
	fails unshare -m sh -c "umount -l /proc && insmod $modules/kho.ko"
	dmesg | grep 'kho: cannot read /proc/iomem (error 2): is /proc mounted?'
	[ ! -e $sys ]
	unshare -m sh -c "umount -l /sys && insmod $modules/kho.ko"
	[ "$(fact arrival)" = 'failed, error 2' ]
	[ ! -e $sys/in/dt ]
	[ "$(mem_total)" = $total ]
	kho-guest fill
	rmmod kho
	insmod $modules/kho.ko
	[ "$(fact arrival)" = handover ]
	modes
	# Scratch is at its old place.
	refused 'busy' sh -c "echo '0x4000000 0x8000000' >$sys/scratch"
	insmod $modules/kho_ring.ko
	ring_is 0 3
	# A driver that hands arrived memory on as it is has to declare that it holds that memory.
	insmod $modules/kho_test.ko pages=6 as_is=2
	refused 'busy' sh -c "echo 1 >$sys/active"
	dmesg | grep 'kho: a producer wants to keep .*, which is reserved'
	thawed
	rmmod kho_test
	# Then the module gives that memory to no one else, as long as the driver is loaded.
	insmod $modules/kho_test.ko pages=6 as_is=1
	[ "$(unclaimed test)" = "$((6 * 4096)) test" ]
	left=$(fact unclaimed)
	for phase in 0 1; do
		echo $phase >$sys/active
		for what in all /test /test/area; do
			refused 'busy' sh -c "echo $what >$sys/release"
		done
		refused 'the producer test has /test, /test/area, /test/piece' kho release all
		kho release all 2>/dev/null || [ $? = 55 ]
		refused 'the producer test has /test/area' kho release /test/area
		[ "$(fact unclaimed)" = $left ]
	done
	dmesg | grep 'kho: all is not released: the producer test has /test,'
	kho status | grep 'unclaimed /test .*; the producer test has it'
	kho dump --file $sys/dt >/tmp/dt
	grep -x '    test {' /tmp/dt
	fails grep 'left' /tmp/dt
	echo 0 >$sys/active
	rmmod kho_test
	[ "$(unclaimed test)" = $((6 * 4096)) ]
	# A driver of the same name that does not know the arrived node: that node goes on under another name.
	insmod $modules/kho_test.ko pages=2 compatible=other-v1
	[ "$(cat /sys/module/kho_test/parameters/verified)" = -1 ]
	[ "$(unclaimed test)" = $((6 * 4096)) ]
	echo 1 >$sys/active
	kho dump --file $sys/dt >/tmp/dt
	cat /tmp/dt
	grep -x '    test {' /tmp/dt
	grep -x '    test,left {' /tmp/dt
	refused 'busy' sh -c "echo /test >$sys/release"
	load
	;;
2)
	insmod $modules/kho.ko
	kho-guest fill
	[ "$(unclaimed test)" = $((2 * 4096)) ]
	[ "$(unclaimed test,left)" = $((6 * 4096)) ]
	insmod $modules/kho_test.ko pages=2 arrived=test,left
	[ "$(cat /sys/module/kho_test/parameters/verified)" = 0 ]
	rmmod kho_test
	# A driver that takes a part of a node and no more: the rest of the node ends here.
	insmod $modules/kho_test.ko pages=2 compatible=other-v1 part=1
	[ "$(cat /sys/module/kho_test/parameters/verified)" = 0 ]
	[ "$(unclaimed test)" = 4096 ]
	load
	dmesg | grep 'kho: /test was claimed in part: the rest of it is not handed over again'
	kho dump --file $sys/dt >/tmp/dt
	fails grep 'left' /tmp/dt
	;;
*)
	insmod $modules/kho.ko
	# A driver that comes in the active phase begins no fresh state: the phase hands the old one over again.
	echo 1 >$sys/active
	refused 'temporarily unavailable' insmod $modules/kho_ring.ko
	echo 0 >$sys/active
	insmod $modules/kho_ring.ko
	ring_is 0 3
	# The node of the driver that took a part.
	[ "$(unclaimed test)" = $((2 * 4096)) ]
	[ -z "$(unclaimed test,left)" ]
	# A node without memory can be taken once, also if the module was unloaded meanwhile.
	insmod $modules/kho_test.ko pages=2 arrived=none take=1
	[ "$(cat /sys/module/kho_test/parameters/took)" = 0 ]
	rmmod kho_test
	rmmod kho_ring
	rmmod kho
	insmod $modules/kho.ko
	insmod $modules/kho_test.ko pages=2 arrived=none take=1
	[ "$(cat /sys/module/kho_test/parameters/took)" = -16 ]
	;;
esac
