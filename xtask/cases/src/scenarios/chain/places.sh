# places LINE: prints the different physical places that six plans give to the kernel.
places() {
	for plan in 1 2 3 4 5 6; do
		kho plan "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$1" --json | grep -A 3 '"kernel": {' | grep '"addr"'
	done | sort -u | wc -l
}
# All six are the same place with a chance of less than one in a million.
[ "$(places "$KHO_NEXT_CMDLINE")" -gt 1 ]
[ "$(places "$KHO_NEXT_CMDLINE nokaslr")" = 1 ]
