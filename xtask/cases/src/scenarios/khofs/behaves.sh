# The same operations in the same order on both file systems.
operations() (
	cd "$1"
	mkdir -p dir/sub
	echo one >dir/one
	ln dir/one dir/uno
	ln -s ../dir/one dir/sub/link
	mkfifo dir/pipe
	mknod dir/null c 1 3
	echo x >dir/null
	kho-guest bytes 3000001 --seed 5 >big
	cp big copy
	truncate -s 1500000 copy
	truncate -s 4000000 copy
	truncate -s 10000000 sparse
	echo end >>sparse
	dd if=big of=sparse bs=4096 seek=700 count=3 conv=notrunc 2>/dev/null
	fallocate -l 600000 solid
	chmod 4750 big
	chown 12:34 copy
	touch -d '2001-02-03 04:05:06' dir/one
	mv dir/sub/link dir/moved
	mv big dir/sub/big
	echo other >other
	mv other dir/one
	rm dir/uno
	mkdir gone
	rmdir gone
	exec 3>open
	rm open
	echo still there >&3
	[ "$(cat /proc/self/fd/3)" = 'still there' ]
	exec 3>&-
	fails rmdir dir
	fails ln dir hard
	fails mkdir dir
	fails cat missing
)
describe() (
	cd "$1"
	# Any two file systems differ in the sizes of directories.
	find . -type d -exec stat -c '%n %F %a %h %u %g' {} + | sort
	find . ! -type d -exec stat -c '%n %F %a %h %u %g %s %b %t %T' {} + | sort
	find . -type f -exec sha256sum {} + | sort -k 2
	find . -type l -exec readlink {} +
)
mount_khofs /k size=64m
mkdir -p /t
mount -t tmpfs none /t -o size=64m
for place in /k /t; do
	operations $place
	describe $place >/tmp/$(basename $place)
done
diff /tmp/t /tmp/k
cat /tmp/k
[ "$(stat -c %Y /k/dir/one)" = "$(stat -c %Y /k/dir/one)" ]

# Pages that are spliced are not copied.
for place in /k /t; do
	kho-guest map spliced $place/spliced >/tmp/spliced$(basename $place)
	rm $place/spliced
done
diff /tmp/splicedt /tmp/splicedk
grep -x 'new, new end' /tmp/splicedk

# Random operations.
mkdir /k/churn /t/churn
kho-guest churn /k/churn --last 4
kho-guest churn /t/churn --last 4
same_trees /k/churn /t/churn
rm -r /k/churn /t/churn

# Prints the error of a command, which must fail.
refusal() {
	fails "$@"
	cat /tmp/fails
}
# Calls of renameat2(2), and their errors.
renames() (
	cd "$1"
	mkdir d e
	echo a >a
	echo b >b
	echo x >e/x
	refusal kho-guest rename --noreplace a b
	kho-guest rename --noreplace a c
	kho-guest rename --exchange c b
	kho-guest rename --exchange d b
	refusal kho-guest rename --exchange b none
	refusal kho-guest rename --noreplace --exchange b c
	kho-guest rename --whiteout c w
	refusal kho-guest rename --whiteout b e
	kho-guest rename --whiteout b f
	kho-guest rename --whiteout d w
	find . | sort
	find . -exec stat -c '%n %F %a %h %t %T' {} + | sort
	cat w
) 2>&1
# An overlay with its upper directory on the file system: renames and removals leave whiteouts.
overlay() (
	mkdir $1/upper $1/work /low /over
	echo low >/low/renamed
	echo low >/low/removed
	mkdir /low/dir
	mount -t overlay none /over -o lowerdir=/low,upperdir=$1/upper,workdir=$1/work
	mv /over/renamed /over/new
	rm /over/removed
	rmdir /over/dir
	mkdir /over/dir
	echo up >/over/dir/up
	(cd /over && find . | sort && cat new)
	(cd $1/upper && find . ! -type d -exec stat -c '%n %F %t %T' {} + | sort)
	umount /over
	rm -r /low /over
)
for place in /k /t; do
	mkdir $place/renames
	renames $place/renames >/tmp/renames$(basename $place)
	overlay $place >/tmp/overlay$(basename $place)
	rm -r $place/renames $place/upper $place/work
done
cat /tmp/renamesk /tmp/overlayk
diff /tmp/renamest /tmp/renamesk
diff /tmp/overlayt /tmp/overlayk
grep -q '^./c character special file 0 1 0 0' /tmp/renamesk

# mapped KIB [OPTION] FILE: after every page of FILE was touched, KIB of it are mapped by huge pages.
mapped() {
	kib=$1
	shift
	got=$(kho-guest map huge "$@")
	[ "$got" = "$kib" ] || {
		echo "$*: $got KiB in huge pages, not $kib"
		return 1
	}
}
# Files of several folios of 2 MiB: filled in several ways, mapped, and cut at odd places.
folios() (
	cd "$1"
	for seed in 1 2; do
		kho-guest map cut cut$seed --seed $seed
	done
	fallocate -l 8m solid
	dd if=/dev/zero of=once bs=4M count=2
	dd if=/dev/zero of=slowly bs=10000 count=900
	head -c 6291456 once >most
	cp most sparse
	truncate -s 20000001 sparse
	truncate -s 3000000 most
	truncate -s 100 once
	truncate -s 7000000 once
) 2>/dev/null
[ "$(cat /sys/fs/khofs/large_folios)" = yes ]
for place in /k /t; do
	mkdir $place/folios
	folios $place/folios >/tmp/blocks$(basename $place)
done
diff /tmp/blockst /tmp/blocksk
(cd /k/folios && stat -c '%n %s %b' * && sha256sum *) >/tmp/k
(cd /t/folios && stat -c '%n %s %b' * && sha256sum *) >/tmp/t
diff /tmp/t /tmp/k
cat /sys/fs/khofs/status
grep Huge /proc/meminfo
# Huge pages map what fallocate and large writes made, and what small writes completed behind the first 2 MiB.
mapped 8192 /k/folios/solid
mapped 6144 /k/folios/slowly
mapped 4096 /k/folios/sparse
[ "$(status_of default huge)" -ge $((18 << 20)) ]
rm /k/folios/sparse
# Huge pages fill holes if a mapping asks for them or the mount says so, and never if the mount forbids them.
for huge in advise within_size never; do
	mount -o remount,huge=$huge /k
	truncate -s 5001216 /k/folios/$huge
done
grep ' /k .*huge=never' /proc/mounts
mapped 0 --advise /k/folios/never
[ "$(stat -c %b /k/folios/never)" = 9768 ]
mount -o remount,huge=within_size /k
mapped 4096 /k/folios/within_size
mount -o remount,huge=advise /k
mapped 0 /k/folios/advise
rm /k/folios/advise
truncate -s 5001216 /k/folios/advise
mapped 4096 --advise /k/folios/advise
[ "$(stat -c %b /k/folios/advise)" = 9768 ]
# always: even one byte takes a huge page, and reads show nothing behind the byte; without room for a huge page it takes
# a small one.
mount -o remount,huge=always /k
echo x >/k/folios/always
[ "$(stat -c '%s %b' /k/folios/always)" = '2 4096' ]
truncate -s 4194304 /k/folios/always
mapped 4096 /k/folios/always
[ "$(tr -d '\0' </k/folios/always)" = x ]
# Bytes that a mapping writes behind the end of a file, into the huge page in which the file ends, do not become part of
# the file, even if a hole has split the page since.
for hole in '' 4096 16384; do
	file=/k/folios/behind$hole
	kho-guest bytes 10000 --seed 7 >$file
	for at in 10001 20000 2097151; do
		behind $file $at
		# 6.1 maps the whole huge page: there the write succeeds, and its bytes would show below.
		case $KHO_RELEASE in 6.1.*) [ $status = 0 ] ;; esac
	done
	[ -z "$hole" ] || kho-guest map hole $file $hole
	kho-guest bytes 10000 --seed 7 | dd of=$file conv=notrunc 2>/dev/null
	cp $file /tmp/behind
	truncate -s 15000 $file
	dd if=/dev/zero of=$file bs=1 seek=30000 count=1 conv=notrunc 2>/dev/null
	fallocate -l 40000 $file
	truncate -s 4194304 $file
	truncate -s 4194304 /tmp/behind
	cmp $file /tmp/behind
	rm $file
done
refused 'valid argument' mount -o remount,huge=perhaps /k
mount_khofs /s name=s,size=1m,huge=always
echo x >/s/small
[ "$(stat -c %b /s/small) $(status_of s huge)" = '8 0' ]
umount /s
echo s >/sys/fs/khofs/release
mount -o remount,huge=advise /k
# Cuts while pipes hold pages.
kho-guest map pinned /k/folios/pinned --past-end
kho-guest map pinned /t/folios/pinned
rm -r /k/folios /t/folios
[ "$(status_of default huge)" = 0 ]
[ "$(awk '/^FileHugePages/ { print $2 }' /proc/meminfo)" = 0 ]

# A full file system, and one that holds too much to be made smaller.
for place in /k /t; do
	fails dd if=/dev/zero of=$place/full bs=1M count=80
	fails sh -c "echo no >$place/more"
	fails mount -o remount,size=1m $place
	rm $place/full
	mount -o remount,size=32m $place
	fails fallocate -l 40m $place/full
	rm -f $place/full $place/more
done
[ "$(df -k /k | tail -1 | awk '{print $2}')" = 32768 ]

# Limits of inodes: further names and attributes count, targets of symbolic links count as pages, and removing frees
# them.
space() {
	stat -f -c '%b blocks, %f free; %c inodes, %d free' .
}
limits() (
	cd "$1"
	space
	echo x >file
	kho-guest until-full names file
	space
	fails touch more
	fails mkdir more
	fails mknod more p
	fails ln -s x more
	# A rename over a name frees an inode; the last name of a file belongs to the file.
	rm file.3
	echo y >other
	mv other file.2
	ln file file.3
	fails ln file file.5
	kho-guest rename --exchange file.2 file.3
	fails ln file file.5
	rm file*
	space
	kho-guest until-full unnamed .
	space
	rm N*
	mount -o remount,nr_inodes=100 .
	kho-guest until-full links . --bytes 127
	space
	rm L*
	kho-guest until-full links . --bytes 128
	stat -c '%n %b' L.* | sort
	space
	echo x >more || true
	rm L.1
	echo x >more
	space
	rm -f L* more
	fails mount -o remount,nr_inodes=0x .
	space
) 2>&1
attributes() (
	cd "$1"
	: >file
	kho-guest until-full attributes file --prefix trusted.a --bytes 60000
	kho-guest until-full attributes file --prefix trusted.b --bytes 100
	kho-guest until-full attributes file --prefix trusted.c --bytes 0
	space
	fails touch more
	rm file
	: >file
	kho-guest until-full attributes file --prefix trusted.b --bytes 0
	fails touch more
	rm file
	space
	for i in 1 2 3 4 5 6; do : >file$i; done
	for i in 1 2 3 4 5 6; do kho-guest until-full attributes file$i --prefix trusted.long.name.$i --bytes 1; done
	rm file?
	space
) 2>&1
mount_khofs /k-limits name=limits,size=64k,nr_inodes=8
mkdir /t-limits
mount -t tmpfs none /t-limits -o size=64k,nr_inodes=8
for place in /k /t; do
	limits $place-limits >/tmp/limits$(basename $place)
	mount -o remount,nr_inodes=200 $place-limits
	case $place:$KHO_RELEASE in
	/t:6.1.*) ;; # whose tmpfs does not count attributes: they would fill all memory
	*) attributes $place-limits >/tmp/attributes$(basename $place) ;;
	esac
	umount $place-limits
done
echo limits >/sys/fs/khofs/release
cat /tmp/limitsk /tmp/attributesk
diff /tmp/limitst /tmp/limitsk
# 200 inodes less the root and the file, in units of 1024 bytes; an attribute takes 40 bytes besides name and value.
grep -q "^$(((198 * 1024) / (60000 + 51))), then: No space left" /tmp/attributesk
[ ! -e /tmp/attributest ] || diff /tmp/attributest /tmp/attributesk

# Instances: only a release ends one.
mount_khofs /a name=vm,mode=700,uid=5,gid=6
[ "$(stat -c '%a %u %g' /a)" = "700 5 6" ]
echo vm >/a/file
umount /a
mount_khofs /a name=vm
mount_khofs /b name=vm
[ "$(cat /b/file)" = vm ]
[ ! -e /k/file ]
refused '[Bb]usy' sh -c 'echo vm >/sys/fs/khofs/release'
[ "$(status_of vm state)" = live ]
umount /a
umount /b
echo vm >/sys/fs/khofs/release
[ -z "$(status_of vm state)" ]
refused 'valid argument' mount -t khofs none /a -o size=much
refused 'valid argument' mount -t khofs none /a -o name=a/b
fails rmmod khofs

# An impossible option causes an error and nothing else, at a first mount, at a later one, and at a remount. Nothing
# blocks afterwards.
mount_khofs /a name=full,size=64m,nr_inodes=100
kho-guest bytes 3000000 --seed 8 >/a/data
for i in 1 2 3; do : >/a/$i; done
# The state, limit and size of the instance. A worker changes the rest of its status meanwhile.
full_is() {
	for key in state limit bytes; do status_of full $key; done
}
before=$(full_is)
all_as_before() {
	sync
	mount_khofs /b name=full
	cmp /a/data /b/data
	umount /b
	[ "$(full_is)" = "$before" ]
}
for bad in size=1m size=4k nr_inodes=1 nr_inodes=4 huge=always,size=2m size=16m,nr_inodes=3; do
	refused 'valid argument' mount -t khofs none /b -o name=full,$bad
	refused 'valid argument' mount -o remount,$bad /a
	all_as_before
done
for bad in size=0 size=0% size= size=1x size=17179869184g nr_inodes=0 nr_inodes=5% nr_inodes=16384t huge=perhaps mode=9 uid=x gid=-1 \
	name= name=a/b; do
	refused 'valid argument' mount -t khofs none /b -o name=new,$bad
	refused 'valid argument' mount -t khofs none /b -o name=full,$bad
	refused 'valid argument' mount -o remount,$bad /a
done
all_as_before
refused 'valid argument' mount -o remount,name=other /a
refused 'valid argument' mount -t khofs none /b -o quota=5
all_as_before
dmesg | grep 'khofs: size= asks for 1024 KiB, and the instance uses 2932 KiB: remove files first'
dmesg | grep 'khofs: nr_inodes= asks for 4, and the instance uses 5: remove files first'
mount_khofs /b name=full,size=4m,nr_inodes=5
[ "$(status_of full limit) $(status_of full inode-limit)" = "$((4 << 20)) 5" ]
umount /b
umount /a
echo full >/sys/fs/khofs/release

# Each mount is read-only or writable as its own options say.
mount_khofs /a name=one,ro
refused 'Read-only' touch /a/file
mount_khofs /b name=one
touch /b/file
refused 'Read-only' touch /a/file
mount_khofs /mnt name=one,ro
refused 'Read-only' touch /mnt/file
mount -o remount,ro /b
refused 'Read-only' touch /b/file
mount -o remount,rw /a
touch /a/file
refused 'Read-only' touch /b/file
refused 'Read-only' touch /mnt/file
umount /a /b /mnt
mount_khofs /a name=one
touch /a/file
umount /a
echo one >/sys/fs/khofs/release

# All memory is freed.
sync
before=$(free_kib)
kho-guest bytes $((24 << 20)) --seed 6 >/k/data
mkdir /k/many
for i in $(seq 300); do echo $i >/k/many/$i; done
[ $((before - $(free_kib))) -ge $((20 << 10)) ]
rm -r /k/data /k/many
umount /k
echo default >/sys/fs/khofs/release
within_a_minute are_free $((before - 4096))
cat /sys/fs/khofs/status
rmmod khofs
insmod /lib/modules/$KHO_RELEASE/updates/khofs.ko
