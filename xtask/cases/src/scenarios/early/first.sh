kho-guest bytes $((4 << 20)) | kho keep --name room -
kho plan "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" --json |
	kho-guest load-crowd $count "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
kho-guest loaded --bare
