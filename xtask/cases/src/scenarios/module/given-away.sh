# A module of this boot may have given arrived memory away, and be unloaded when the next kernel is loaded.
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
	# Without a module, the load names all arrived memory again.
	load | tee /tmp/load
	grep -q 'of drivers' /tmp/load
	;;
2)
	# A module that released only slack, and was unloaded. After a release of slack, a load without the module
	# cannot name anything.
	insmod $modules/kho.ko
	slack=$(fact slack-released)
	rmmod kho
	[ $slack -gt 0 ]
	refused_as 67 load
	grep -q 'kho.ko' /tmp/refused
	[ "$(cat /sys/kernel/kexec_loaded)" = 0 ]
	refused_as 67 kho status
	grep -q 'if kho.ko was loaded in this boot' /tmp/refused
	# Memory that a driver took and freed may look reserved again: as part of an image that another program loads.
	insmod $modules/kho.ko
	insmod $modules/kho_test.ko pages=20
	rmmod kho_test
	rmmod kho
	kho-guest load-stranger
	refused_as 67 load
	kho unload --force
	# The module knows which nodes are left, and hands them on.
	insmod $modules/kho.ko
	# The ring, and a node of the test driver without memory.
	[ "$(fact untouched-nodes)" = 2 ]
	load | tee /tmp/load
	grep -q 'of drivers' /tmp/load
	kho status | grep 'in place  /ring'
	;;
3)
	# An aborted part, without the module: kho reports it and leaves it out.
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
	grep -q 'memory that drivers of an earlier kernel left is not handed on' /tmp/load
	;;
5)
	insmod $modules/kho.ko
	[ "$(fact kernel-part)" = none ]
	;;
esac
