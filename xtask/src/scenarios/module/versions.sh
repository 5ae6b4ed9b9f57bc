# The module of another contract: what an old one left for a new one, and a new one with this command. The reverse, what a
# new one left for an old one, is among the forged parts.
case $KHO_HOP in
0)
	insmod $modules/kho.ko
	insmod $modules/kho_ring.ko
	ring_add 3
	load
	;;
1)
	insmod $modules/kho_next.ko
	[ "$(fact kernel-part)" = 'it is of another version' ]
	dmesg | grep 'kho: the kernel.s part of the handover is ignored, and its memory stays reserved: it is of another version'
	[ ! -e $sys/in/dt ]
	kho status | grep 'ignored and stays reserved: it is of another version'
	insmod $modules/kho_ring.ko
	[ "$(cat $ring/origin)" = new ]
	ring_add 1
	kho-guest fill
	# This command does not know what the module writes, says so, and leaves nothing behind.
	refused 'kho-kernel-v1' kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
	grep 'the command that came with the module' /tmp/refused
	thawed
	ring_add 1
	kho activate
	frozen
	grep -q -a kho-kernel-v2 $sys/dt
	kho status | grep 'in place  /ring'
	kho abort
	# The old module, in the same boot, finds everything as it was left.
	rmmod kho_ring
	rmmod kho
	insmod $modules/kho.ko
	insmod $modules/kho_ring.ko
	ring_is 0 3
	load
	;;
*)
	insmod $modules/kho.ko
	insmod $modules/kho_ring.ko
	ring_is 0 3
	;;
esac
