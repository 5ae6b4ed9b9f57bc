# Disks of every kind, by the serial numbers that the host gave them; a network card and a display.

# disk_of SERIAL: the name of the disk's device.
disk_of() {
	for disk in /sys/block/*; do
		# A path of a disk that has several is in sysfs only.
		[ -b /dev/$(basename $disk) ] || continue
		case $(cat $disk/serial $disk/device/serial $disk/device/vpd_pg80 2>/dev/null | tr -dc 'a-z') in
		*$1*)
			basename $disk
			return
			;;
		esac
	done
	return 1
}
usb_disk() {
	for disk in /sys/block/sd*; do
		case $(readlink -f $disk/device) in
		*/usb*)
			basename $disk
			return
			;;
		esac
	done
	return 1
}
find_disks() {
	for name in nvme sata scsi; do disk_of $name >/dev/null || return 1; done
	usb_disk >/dev/null
}

# Writes to the disks in the first kernel; in others, checks that they hold what it wrote, whatever was done with them up to the jump.
disks_are_whole() {
	within_a_minute find_disks
	disks="$(disk_of nvme) $(disk_of sata) $(disk_of scsi) $(usb_disk)"
	echo "disks: $disks"
	number=0
	for disk in $disks; do
		number=$((number + 1))
		[ $KHO_HOP != 0 ] || {
			kho-guest bytes 8388608 --seed 1$number | dd of=/dev/$disk bs=1M 2>/dev/null
			sync
		}
		echo 3 >/proc/sys/vm/drop_caches
		dd if=/dev/$disk bs=1M count=8 2>/dev/null | kho-guest hash --same disk-$number
	done
	[ "$(ls /sys/kernel/iommu_groups | wc -l)" -gt 4 ]
	[ -e /sys/class/drm/card0 ]
	ls -d /sys/bus/pci/drivers/e1000e/0000:* /sys/bus/pci/drivers/xhci_hcd/0000:* /sys/bus/pci/drivers/ahci/0000:*
}

# Writes to two disks and reads from two without an end, and sends packets: that goes on when the next kernel starts. Writes are behind
# the part that is compared. The pieces are small because QEMU's AHCI fails large ones behind an IOMMU.
keep_devices_busy() {
	for disk in $(disk_of nvme) $(disk_of scsi); do
		(while :; do dd if=/dev/zero of=/dev/$disk bs=32k seek=512 count=1280 oflag=direct; done >/dev/null 2>&1) &
	done
	disk=$(usb_disk)
	(while :; do dd if=/dev/$disk of=/dev/null bs=32k iflag=direct; done >/dev/null 2>&1) &
	# Few commands: QEMU 10's AHCI completes a queued one twice now and then, and libata warns of it.
	sata=$(disk_of sata)
	(while :; do dd if=/dev/$sata of=/dev/null bs=32k count=1 iflag=direct && sleep 0.05; done >/dev/null 2>&1) &
	net=$(basename "$(ls -d /sys/bus/pci/drivers/e1000e/0000:*/net/* | head -n 1)")
	ip link set $net up
	ip addr add 10.0.2.15/24 dev $net
	(ping 10.0.2.2 >/dev/null 2>&1) &
}
