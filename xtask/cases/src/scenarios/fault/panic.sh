# The next kernel dies before it has a user space: without its initial file system it has nothing to mount.
case $KHO_HOP,$(kho-guest lives) in
0,1)
	keep_tree_and_blob 4
	KHO_NEXT_CMDLINE="$KHO_NEXT_CMDLINE initcall_blacklist=populate_rootfs"
	load
	kho-guest loaded
	;;
0,2)
	refused 'nothing arrived' kho restore
	keep_tree_and_blob 4
	;;
1,2)
	check_tree_and_blob
	;;
*)
	false
	;;
esac
