# Modules of two contracts: data of an old one for a new one, a new one with the old command, and data of a new one and
# its command for an old one. Each finds its own data unchanged, in the same boot.
# Data of another version arrived: the module reports that, and gives no memory to any driver.
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
	# This command does not know the data that the module writes, reports that, and leaves nothing behind.
	refused 'kho-kernel-v1' kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
	grep 'the command that came with the module' /tmp/refused
	thawed
	ring_add 1
	kho activate
	frozen
	grep -q -a kho-kernel-v2 $sys/dt
	kho status | grep 'in place  /ring'
	kho abort
	# The old module, in the same boot, finds everything unchanged.
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
	# Module and command of the next contract: they begin anew beside the old data, and make a real handover.
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
