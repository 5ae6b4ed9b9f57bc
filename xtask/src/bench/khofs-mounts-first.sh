for size in 2 1 16 512; do
	mkdir /$size
	mount -t khofs none /$size -o name=mib-$size,size=90%
	fallocate -l ${size}m /$size/file
done
cat /sys/fs/khofs/status
