# A module of this boot may have given away what arrived, and be gone when the next kernel is loaded.
refused_as() {
	want=$1
	shift
	got=0
	"$@" >/tmp/refused 2>&1 || got=$?
	cat /tmp/refused
	[ $got = $want ]
}

case $KHO_HOP in
0)
	insmod $modules/kho.ko
	insmod $modules/kho_ring.ko
	insmod $modules/kho_test.ko pages=300
	ring_add 4
	;;
1)
	# No module: all of it is named again.
	load | tee /tmp/load
	grep -q 'of drivers' /tmp/load
	;;
2)
	# A module that took nothing but slack, and is gone. Where there was slack, nothing can be named again without it.
	insmod $modules/kho.ko
	slack=$(fact slack-released)
	rmmod kho
	[ $slack -gt 0 ]
	refused_as 67 load
	grep -q 'kho.ko' /tmp/refused
	[ "$(cat /sys/kernel/kexec_loaded)" = 0 ]
	refused_as 67 kho status
	grep -q 'if kho.ko was loaded in this boot' /tmp/refused
	# What a driver took and gave back may look reserved again: as part of an image that somebody loads.
	insmod $modules/kho.ko
	insmod $modules/kho_test.ko pages=20
	rmmod kho_test
	rmmod kho
	kho-guest load-stranger
	refused_as 67 load
	kho unload --force
	# The module knows what is left, and hands that on.
	insmod $modules/kho.ko
	# The ring, and a node of the test driver that has no memory.
	[ "$(fact untouched-nodes)" = 2 ]
	load | tee /tmp/load
	grep -q 'of drivers' /tmp/load
	kho status | grep 'in place  /ring'
	;;
3)
	# An aborted part, without the module: said, and left out.
	insmod $modules/kho.ko
	insmod $modules/kho_ring.ko
	ring_is 0 4
	load
	echo 0 >$sys/active
	kho status | grep 'loaded .*STALE'
	kho-guest loaded --bare
	;;
4)
	kho status | grep 'what drivers left is ignored and stays reserved: '
	load 2>&1 | tee /tmp/load
	grep -q 'what drivers of an earlier kernel left is not handed on' /tmp/load
	;;
5)
	insmod $modules/kho.ko
	[ "$(fact kernel-part)" = none ]
	;;
esac
