kho-guest fill
before=$(kho-guest boottime)
mount_khofs /k name=tree
seconds $before mount-seconds
cat /sys/fs/khofs/status
kho get list >/tmp/list
[ "$(wc -l </tmp/list)" -gt $KHO_ENTRIES ]
kho-guest hash-tree -v /k/tree >/tmp/found
cmp -s /tmp/list /tmp/found || {
	diff /tmp/list /tmp/found | head -n 20
	false
}
tail -n 1 /tmp/found | kho-guest same tree
rm /tmp/list /tmp/found
# The tree can be changed and changed back.
ln -s x /k/new
rm /k/new
kho-guest bytes 5000 >/k/other
rm /k/other
[ -z "$KHO_NEXT" ] || load_and_count
