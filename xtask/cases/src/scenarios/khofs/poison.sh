# The memory of some pages fails: pages of a folio of 2 MiB, of a small file, of a file from the previous kernel, and of
# an instance that is not mounted yet.

# A file without one of its pages.
but() {
	dd if="$1" bs=4096 count="$2" 2>/dev/null
	dd if="$1" bs=4096 skip=$(($2 + 1)) 2>/dev/null
}
# fails FILE PAGE: the page can be neither read nor written nor mapped.
fails() {
	refused 'Input.output error' dd if="$1" of=/dev/null bs=4096 skip="$2" count=1
	refused 'Input.output error' dd if=/dev/zero of="$1" bs=4096 seek="$2" count=1 conv=notrunc
	! kho-guest map touch "$1" "$2" || return 1
	# A read that includes pages before it ends before the failed page.
	refused 'Input.output error' dd if="$1" of=/tmp/part bs=4M count=2
	[ "$(stat -c %s /tmp/part)" = $(($2 * 4096)) ]
	head -c 8192 /dev/zero >/tmp/two
	beside=$(($2 ^ 1))
	dd if="$1" of=/tmp/two bs=4096 skip=$beside seek=$((beside & 1)) count=1 conv=notrunc 2>/dev/null
	refused 'Input.output error' dd if=/tmp/two of="$1" bs=8192 seek=$(($2 / 2)) count=1 conv=notrunc
}
poison() {
	# The kernel may kill processes that have the page mapped.
	kho-guest map poison "$1" "$2" >/tmp/poison || true
	sed -n 's/^page .* at \([0-9]*\)$/\1/p' /tmp/poison | grep . >>/k/bad
	fails "$1" "$2"
}
# load_without COUNT: loads the next kernel; khofs reports COUNT pages of files as lost.
load_without() {
	load
	kho-guest loaded
	dmesg | grep "khofs: $1 pages of files of instance vm are lost"
}

if [ "$KHO_HOP" = 0 ]; then
	mount_khofs /k name=vm
	fallocate -l 8m /k/large
	kho-guest bytes $((8 << 20)) --seed 1 | dd of=/k/large bs=1M conv=notrunc 2>/dev/null
	fallocate -l 4m /k/later
	kho-guest bytes $((4 << 20)) --seed 2 | dd of=/k/later bs=1M conv=notrunc 2>/dev/null
	kho-guest bytes 20000 --seed 3 >/k/small
	echo reserved >/k/reserved
	echo good >/k/good
	[ "$(status_of vm huge)" = $((12 << 20)) ]
	poison /k/large 700
	poison /k/small 2
elif [ "$KHO_HOP" = 2 ]; then
	[ "$(status_of vm state)" = arrived ]
	kho get where | sed 's/.*"addr":\([0-9]*\).*/\1/' >/tmp/where
	cat /tmp/where
	cat /tmp/where >/sys/devices/system/memory/hard_offline_page || true
	refused 'hardware error' kho activate
	dmesg | grep 'khofs: memory of instance vm failed .*: mount it'
fi
kho-guest fill
[ "$KHO_HOP" = 0 ] || mount_khofs /k name=vm
# No file holds the failed pages any more, and the kernel does not use them either.
[ "$KHO_HOP" = 0 ] || unusable /k/bad
fails /k/large 700
fails /k/small 2
but /k/large 700 | kho-guest hash --same large
but /k/small 2 | kho-guest hash --same small
[ "$(cat /k/good)" = good ]
# Failed memory that belongs to no file any more is not used again.
if [ "$KHO_HOP" = 0 ]; then
	fallocate -l 4m /k/gone
	kho-guest bytes 50000 --seed 4 >/k/lost
	poison /k/gone 600
	poison /k/lost 5
	rm /k/gone /k/lost
	cat /sys/fs/khofs/status
	fallocate -l 16m /k/other
	kho-guest bytes $((16 << 20)) --seed 5 | dd of=/k/other bs=1M conv=notrunc 2>/dev/null
	kho-guest bytes 16777216 --seed 5 | cmp - /k/other
	rm /k/other
fi
case $KHO_HOP in
0)
	kho-guest hash --same later </k/later
	load_without 2
	;;
1)
	[ "$(cat /k/reserved)" = reserved ]
	kho-guest hash --same later </k/later
	poison /k/later 100
	kho-guest map where /k/reserved | kho keep --name where -
	load_without 3
	;;
2)
	cat /tmp/where >>/k/bad
	fails /k/later 100
	fails /k/reserved 0
	but /k/later 100 | kho-guest hash --same but-later
	load_without 4
	;;
3)
	fails /k/later 100
	fails /k/reserved 0
	but /k/later 100 | kho-guest hash --same but-later
	# Cutting a failed page off forgets the failure; the new memory in its place is good.
	refused 'Input.output error' truncate -s $((700 * 4096 + 5)) /k/large
	truncate -s $((700 * 4096)) /k/large
	truncate -s $((701 * 4096)) /k/large
	[ "$(tail -c 4096 /k/large | tr -d '\0' | wc -c)" = 0 ]
	echo new | dd of=/k/large bs=4096 seek=700 conv=notrunc 2>/dev/null
	[ "$(tail -c 4096 /k/large | tr -d '\0')" = new ]
	;;
esac
if [ "$KHO_HOP" = 3 ]; then
	rm /k/*
	[ "$(status_of vm bytes)" = 0 ]
	umount /k
	echo vm >/sys/fs/khofs/release
	rmmod khofs
fi
