# A chain that changes its carrier: content comes to hops 2 and 3 in the initrd, to hops 1 and 4 in memory.
K=${KHO_NEXT_KERNEL:-} I=${KHO_NEXT_INITRD:-} C=${KHO_NEXT_CMDLINE:-}

# hook FILE: an initrd with the programs that a hook puts there.
hook() {
	mkdir -p /tmp/hook
	kho initrd /tmp/hook
	(cd /tmp/hook && find . | cpio -o -H newc) >"$1" 2>/dev/null
}

# arrived CARRIER: the content arrived this way, whole.
arrived() {
	kho status
	kho status --json | tr -d ' \n' >/tmp/status
	grep -q "\"arrived\":{.*\"carrier\":\"$1\".*\"hop\":$KHO_HOP," /tmp/status
	kho get blob | kho-guest hash --same blob
	kho validate --in
	kho trace | grep -q "said in hop $((KHO_HOP - 1))"
	[ "$(kho get empty | wc -c)" = 0 ]
	mkdir /tmp/tree
	kho restore tree --into /tmp/tree
	kho-guest hash-tree /tmp/tree/srv/tree --same tree
	rm -r /tmp/tree
}

# Nothing of it can be read by others.
closed() {
	echo nobody:x:65534:65534::/tmp:/bin/sh >>/etc/passwd
	for folder in /.kho/carried /run/kho/carried; do
		[ ! -e "$folder/tree" ] || fails su nobody -c "ls $folder"
		[ ! -e "$folder/tree" ] || fails su nobody -c "cat $folder/tree $folder/content-0"
	done
}

echo "said in hop $KHO_HOP" >/sys/kernel/tracing/trace_marker
case $KHO_HOP in
0)
	mkdir -p /srv/tree
	for n in 1 2 3; do kho-guest bytes $((n * 1000001)) --seed $n >/srv/tree/$n; done
	# More than one file of the archive.
	kho-guest bytes 70000000 --seed 9 >/tmp/blob
	kho-guest hash-tree /srv/tree --same tree
	kho-guest hash --same blob </tmp/blob
	kho keep /srv/tree --name tree
	kho keep --name blob - </tmp/blob
	kho keep --name empty - </dev/null
	rm /tmp/blob
	kho keep --trace
	# What one has to ask for, where memory can stay in place.
	hook /tmp/hook.img
	refused 'its initrd has no /.kho/carry' kho load --carrier initrd "$K" --initrd "$I" --append "$C"
	refused 'it has no initrd' kho load --carrier initrd "$K" --no-initrd --append "$C"
	kho load --carrier initrd "$K" --initrd "$I" --initrd /tmp/hook.img --append "$C"
	kho status --json | grep -q '"by": "kho"'
	kho unload
	kho load "$K" --initrd "$I" --append "$C"
	;;
1 | 2)
	if [ "$KHO_HOP" = 1 ]; then arrived memory; else arrived initrd; fi
	closed
	hook /tmp/hook.img
	kho plan --carrier initrd "$K" --initrd "$I" --initrd /tmp/hook.img --append "$C" | tee /tmp/plan
	grep -q 'in its initrd' /tmp/plan
	refused 'the next kernel needs .* of memory to unpack .* of content from its initrd' \
		kho load --carrier initrd "$K" --initrd "$I" --initrd /tmp/hook.img --append "$C mem=300M"
	refused '.-late: the initrd is fixed' kho load --late --carrier initrd "$K" --initrd "$I" --append "$C"
	kho load --carrier initrd "$K" --initrd "$I" --initrd /tmp/hook.img --append "$C"
	;;
3)
	# A guest does not change its root file system: the program is called by hand.
	arrived initrd
	[ -s /.kho/carried/content-1 ]
	/.kho/carry
	[ ! -e /.kho/carried/tree ] && [ ! -e /.kho/carried/content-0 ]
	dmesg | grep 'the initrd brought 3 files'
	arrived initrd
	closed
	# What is restored needs its file no more.
	used() { du -k /run/kho/carried | cut -f 1; }
	before=$(used)
	rm -rf /srv/tree
	kho restore
	kho-guest hash-tree /srv/tree --same tree
	[ "$(used)" -lt $((before - 5000)) ]
	kho load "$K" --initrd "$I" --append "$C"
	# Content that did not come whole is refused by name, and everything else can be used.
	truncate -s 8192 /run/kho/carried/content-1
	refused 'blob' sh -c 'kho get blob >/dev/null'
	kho get empty
	;;
4)
	arrived memory
	;;
esac
[ -z "$K" ] || kho-guest loaded
