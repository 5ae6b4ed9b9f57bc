for size in 2 1 16 512; do
	mkdir /$size
	kho-guest timed mount -t khofs none /$size -o name=mib-$size >/tmp/took
	[ $size = 2 ] || kho-guest report mount-${size}MiB </tmp/took
done
