# The module of another contract: what an old one left for a new one, a new one with this command, and what a new one and its
# command left for an old one. Each finds what is its own as it was left, in the same boot.
# What arrived is of another version: it says so, and nobody gets any of it.
of_another_version() {
	[ "$(fact arrival)" = handover ]
	[ "$(fact kernel-part)" = 'it is of another version' ]
	[ ! -e $sys/in/dt ]
	kho status | grep 'ignored and stays reserved: it is of another version'
	insmod $modules/kho_ring.ko
	[ "$(cat $ring/origin)" = new ]
	ring_add 1
	kho-guest fill
}

case $KHO_HOP in
0)
	insmod $modules/kho.ko
	insmod $modules/kho_ring.ko
	ring_add 3
	load
	;;
1)
	insmod $modules/kho_next.ko
	of_another_version
	dmesg | grep 'kho: the kernel.s part of the handover is ignored, and its memory stays reserved: it is of another version'
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
2)
	insmod $modules/kho.ko
	insmod $modules/kho_ring.ko
	ring_is 0 3
	rmmod kho_ring
	rmmod kho
	# Everything of the next contract: it begins anew beside what the old one left, and hands over for real.
	insmod $modules/kho_next.ko
	insmod $modules/kho_ring.ko
	[ "$(cat $ring/origin)" = new ]
	ring_add 5
	"$KHO_FILES/kho-next" load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
	frozen
	grep -q -a kho-kernel-v2 $sys/dt
	"$KHO_FILES/kho-next" status | grep 'loaded    .* for hop 3'
	kho-guest loaded --bare
	;;
*)
	insmod $modules/kho.ko
	of_another_version
	kho activate
	frozen
	kho abort
	rmmod kho_ring
	rmmod kho
	insmod $modules/kho_next.ko
	insmod $modules/kho_ring.ko
	ring_is 0 5
	;;
esac
