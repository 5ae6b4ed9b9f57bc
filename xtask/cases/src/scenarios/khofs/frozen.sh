mount_khofs /k
kho-guest bytes 1000000 --seed 1 >/k/data
# A policy for memory that is not followed is refused, and the log says who asked.
kho-guest map bind /k/data --nodes 3
refused 'not supported' kho-guest map bind /k/data --nodes 1
dmesg | grep 'khofs: mbind() of a file by kho-guest is refused: files of khofs have no memory policy'
truncate -s 100000 /k/sparse
truncate -s 100000 /k/followed
mkdir /k/dir
echo 1 >/sys/kernel/kho/active
# Writes in place go on.
dd if=/dev/zero of=/k/data bs=4096 count=3 conv=notrunc 2>/dev/null
[ "$(dd if=/k/data bs=4096 count=1 2>/dev/null | tr -d '\0' | wc -c)" = 0 ]
wc -c </k/sparse
# Changes of written-down state are refused with EBUSY.
for command in \
	'echo x >/k/new' 'mkdir /k/new' 'ln -s x /k/new' 'ln /k/data /k/new' 'rm /k/data' 'rmdir /k/dir' \
	'mv /k/data /k/new' 'truncate -s 5 /k/data' 'echo more >>/k/data' 'chmod 600 /k/data' \
	'touch -d @5 /k/data' 'fallocate -l 2000000 /k/data' \
	'dd if=/dev/zero of=/k/sparse bs=4096 count=1 conv=notrunc' 'mount -t khofs none /mnt -o name=new' \
	'rmmod khofs' 'echo default >/sys/fs/khofs/release' \
	'mount -o remount,size=64m /k' 'mount -o remount,nr_inodes=10000 /k'; do
	refused 'busy\|unavailable' sh -c "$command"
done
# A hole reads as zeros, also through a mapping by which it cannot be written to.
kho-guest map hash /k/sparse >/tmp/sparse
head -c 100000 /dev/zero | kho-guest hash | cmp - /tmp/sparse
kho-guest map follow /k/followed >/tmp/follow &
follower=$!
within_a_minute grep -q reading /tmp/follow
# One that is written to through a mapping waits, and can be killed.
kho-guest map write /k/sparse >/dev/null &
writer=$!
sleep 1
kill -0 $writer
# It wrote nothing: a write would have given the file memory.
[ "$(stat -c %b /k/sparse)" = 0 ]
# Nobody waits behind it who changes the mappings of that process, or looks at them.
timeout 20 sh -c "echo 5 >/proc/$writer/clear_refs"
timeout 20 cat /proc/$writer/maps /proc/$writer/cmdline >/dev/null
kho-guest map write /k/sparse >/dev/null &
second=$!
sleep 1
kill -9 $second
wait $second || true
echo 0 >/sys/kernel/kho/active
within_a_minute written /k/sparse
# A mapping that showed a hole then shows what is written now.
kho-guest bytes 100000 --seed 2 | tr '\0' x | dd of=/k/followed conv=notrunc 2>/dev/null
wait $follower
rm /k/followed
kill -9 $writer
wait $writer || true
kho-guest map check /k/sparse
echo more >>/k/data
rm /k/data
mv /k/sparse /k/full
echo done >/k/dir/file
# Limits count the same inodes after the hop.
ln /k/full /k/again
ln -s $(printf '%0200d' 0) /k/long
kho-guest until-full names /k/dir/file --most 20
kho-guest until-full attributes /k/full --bytes 3000 --most 20
kho-guest until-full attributes /k/full --bytes 0 --prefix trusted.more --most 300
kho-guest hash-tree /k --same tree
mount -o remount,size=64m,nr_inodes=10000 /k
stat -f -c '%b blocks, %f free; %c inodes, %d free' /k | kho-guest same space
