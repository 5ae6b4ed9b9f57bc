# In the first kernel, keeps a tree and a blob. In every later one, overwrites all free memory and checks both.
if [ "$KHO_HOP" = 0 ]; then
	keep_tree_and_blob 24
	refused 'needed is an arm64 Image' kho plan /bin/busybox --no-initrd
else
	kho status | grep -q "hop $KHO_HOP from"
	[ "$(stat -c %a /sys/firmware/fdt)" = 400 ]
	kho-guest fill
	kho restore
	kho-guest hash-tree /srv/tree --same tree
	kho get blob | kho-guest hash --same blob
fi

# Debian's 6.1 for arm64 does not name kexec_image, so kho cannot tell whose image is loaded, and kho exec refuses.
if [ -n "$KHO_NEXT" ] && [ "${KHO_RELEASE#6.1.}" != "$KHO_RELEASE" ]; then
	kho load "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --command-line "$KHO_NEXT_CMDLINE"
	refused 'does not name kexec_image' kho exec
	kho-guest loaded --bare
fi
