# A bit of kept memory flips, from outside the machine. kho finds the flip wherever it matters, and other entries arrive
# unharmed.
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
	for name in head content; do
		mkdir /srv/$name
		kho-guest bytes 1000000 --seed 5 >/srv/$name/file
		kho keep /srv/$name
	done
	;;
1)
	# Before the flip; the reported time is that of hashing under emulation.
	load --verify 2>&1 | tee /tmp/verified
	grep -o 'verified.*' /tmp/verified | kho-guest report verified
	for name in blob srv-head srv-content; do address $name | kho-guest report $name; done
	kho-guest mark flip
	kho-guest fill
	corrupt kho get blob
	corrupt kho restore --into /tmp blob
	corrupt load --verify
	# Intact entries are restored; of damaged ones nothing is left, not even in the staging directory. The error
	# names the content, also if the archive cannot be read.
	rm -rf /srv/head /srv/content
	for name in head content; do
		corrupt kho restore srv-$name
		grep -q "srv-$name: its .* bytes hash to" /tmp/err
	done
	corrupt kho restore
	[ "$(ls -A /srv)" = tree ]
	kho-guest hash-tree /srv/tree --same tree
	;;
2)
	# The blob was carried on unchanged, and kho still finds it damaged.
	kho-guest fill
	corrupt kho get blob
	kho restore --into /mnt srv-tree
	kho-guest hash-tree /mnt/srv/tree --same tree
	;;
esac
