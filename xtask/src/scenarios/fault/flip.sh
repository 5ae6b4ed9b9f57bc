# A bit of kept memory flips, from outside of the machine. It is found wherever it could matter, and nowhere else does
# it do harm.
corrupt() {
	got=0
	"$@" >/tmp/out 2>/tmp/err || got=$?
	cat /tmp/err
	[ $got = 63 ] && grep -q 'hash' /tmp/err
}
case $KHO_HOP in
0)
	keep_tree_and_blob 4
	kho-guest bytes $((64 << 20)) --seed 3 | kho keep --name large -
	;;
1)
	# Nothing is wrong yet; the time is that of hashing under emulation.
	load --verify 2>&1 | tee /tmp/verified
	grep -o 'verified.*' /tmp/verified | kho-guest report verified
	address blob | kho-guest report blob
	kho-guest mark flip
	kho-guest fill
	corrupt kho get blob
	corrupt kho restore --into /tmp blob
	corrupt load --verify
	# The others are as they were.
	kho restore
	kho-guest hash-tree /srv/tree --same tree
	;;
2)
	# Carried on as it was, and still known to be wrong.
	kho-guest fill
	corrupt kho get blob
	kho restore --into /mnt srv-tree
	kho-guest hash-tree /mnt/srv/tree --same tree
	;;
esac
