# Power is cut in the middle of a load, after it, and in the next kernel. Kept content is in RAM and is lost; the
# machine boots from the firmware, and leftovers do not obstruct it.

nothing_arrived() {
	[ ! -e /sys/kernel/boot_params/setup_data ] || ! kho-guest ranges | grep -q 'type 0x[4k]' || return 1
	refused 'nothing arrived' kho restore
	[ "$(cat /sys/kernel/kexec_loaded)" = 0 ]
}

# When restore reports success, the restored files are on the disk, because their memory may be released then. The
# kernel's own writeback is off here.
disk() {
	echo 0 >/proc/sys/vm/dirty_writeback_centisecs
	mkdir -p /disk
	mount -t ext4 /dev/vdb /disk
}

life=$(kho-guest lives)
echo "switched on $life times"
case $KHO_HOP,$life in
0,1)
	keep_tree_and_blob 4
	kho-guest kill-at 30 --then 'kho-guest mark cut' -- \
		kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
	;;
0,2)
	nothing_arrived
	keep_tree_and_blob 4
	load
	kho-guest mark cut
	;;
0,3)
	nothing_arrived
	keep_tree_and_blob 4
	mke2fs -F /dev/vdb >/dev/null
	disk
	kho-guest make-tree /disk/tree --bytes $((4 << 20)) --seed 7
	kho-guest hash-tree /disk/tree --same disk
	kho keep /disk/tree
	;;
1,3)
	disk
	rm -rf /disk/tree
	sync
	check_tree_and_blob
	kho-guest mark cut
	;;
0,4)
	nothing_arrived
	disk
	kho-guest hash-tree /disk/tree --same disk
	umount /disk
	keep_tree_and_blob 4
	;;
1,4)
	check_tree_and_blob
	;;
*)
	echo "hop $KHO_HOP in life $life"
	false
	;;
esac
