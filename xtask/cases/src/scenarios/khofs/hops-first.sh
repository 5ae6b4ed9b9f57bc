mount_khofs /k name=vm,mode=750
kho-guest make-tree /k/tree --bytes $((16 << 20)) --seed 1 --user-xattrs
kho-guest hash-tree /k/tree --same tree
kho-guest bytes $((24 << 20)) --seed 3 >/k/big
kho-guest hash --same big </k/big
mkdir /k/churn
kho-guest churn /k/churn --last 0
echo 0 >/k/rounds
fallocate -l 4m /k/map
mount_khofs /cold name=cold,size=8m
echo cold >/cold/file
kho-guest hash-tree /cold --same cold
umount /cold
# Writes through a mapping up to the moment of kexec, whatever happens to the mount.
setsid kho-guest map write /k/map >/dev/null &
# The writer goes on until the jump; the next kernel checks what it wrote.
within_a_minute written /k/map
# In huge pages.
[ "$(status_of vm huge)" -ge $((26 << 20)) ]
umount -l /k
