# More arrived than the limits of this mount allow: all of it is accessible, and no more can be added until the limits
# are raised.
for time in first again; do
	mount_khofs /k size=4k,nr_inodes=1
	[ "$(status_of default limit) $(status_of default inode-limit)" = '4096 1' ]
	kho-guest hash-tree /k --same tree
	refused 'No space' touch /k/new
	refused 'No space' ln /k/full /k/new
	refused 'No space' fallocate -o 99999744 -l 4096 /k/full
	umount /k
done
mount_khofs /k size=64m,nr_inodes=10000
kho-guest hash-tree /k --same tree
stat -f -c '%b blocks, %f free; %c inodes, %d free' /k | kho-guest same space
