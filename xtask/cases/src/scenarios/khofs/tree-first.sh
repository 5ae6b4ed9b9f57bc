mount_khofs /k name=tree,size=90%
kho-guest make-tree /k/tree --bytes $((2 << 20)) --entries $KHO_ENTRIES --seed 4 --user-xattrs
find /k/tree | wc -l
# The list is kept too, so that a differing entry can be named.
kho-guest hash-tree -v /k/tree >/tmp/list
tail -n 1 /tmp/list | kho-guest same tree
kho keep --name list - </tmp/list
rm /tmp/list
load_and_count
