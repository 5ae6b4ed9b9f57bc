# Runs in every kernel.
foreign
describe() {
	# Any two file systems differ in the sizes of directories.
	(cd $1 && find . -exec stat -c '%n %F %a %u %g' {} + | sort &&
		find . ! -type l | sort | getfacl -n - && find . -type f -exec sha256sum {} + | sort -k 2)
}
mkdir -p /etc
echo 'user:x:1000:1000::/:/bin/sh' >>/etc/passwd
echo 'user:x:1000:' >>/etc/group
as_user() {
	busybox su user -c "$1" 2>&1 || echo fails
}
operations() (
	cd "$1"
	umask 027
	chmod 755 .
	echo one >plain
	setfacl -m u:1000:rw,g:2000:r plain
	# The mask follows the permissions, and an ACL without further entries is none.
	cp plain masked
	setfacl -m u:1000:rwx masked
	chmod 640 masked
	echo x >short
	setfacl -m u:5:r short
	setfacl -b short
	# The default ACL of a directory and not the umask counts in it.
	mkdir dir
	setfacl -d -m u:1000:rwx,g:2000:rx,o::r dir
	setfacl -m u:1000:x dir
	mkdir dir/sub
	echo two >dir/file
	echo three >dir/sub/file
	ln -s file dir/link
	mknod dir/null c 1 3
	mkfifo dir/pipe
	mkdir dir/cleared
	setfacl -k dir/cleared
	echo four >dir/cleared/file
	# A large one.
	echo x >large
	for i in $(seq 300 400); do echo u:$i:r--; done >/tmp/entries
	setfacl -M /tmp/entries large
	# Errors.
	fails setfacl -d -m u:1000:r plain
	cat /tmp/fails
	as_user 'cat plain && echo more >>plain && cat masked'
	as_user 'echo more >>masked'
	as_user 'cat dir/file; ls dir'
	as_user 'setfacl -m u:1000:rwx plain'
	chmod u+s,g+s masked
	as_user 'echo x >>dir/file'
	describe .
) 2>&1
# In an idmapped mount root of the file system is user 1000. The tmpfs of 6.1 refuses such mounts.
idmapped() (
	mkdir -p $1/mapped /m
	cd $1/mapped
	echo of-root >theirs
	chmod 600 theirs
	setfacl -m u:7:r theirs
	if ! /media/root/usr/bin/mount --bind -o X-mount.idmap=b:0:1000:1 . /m 2>/tmp/refused; then
		grep -o 'Operation not permitted\|Invalid argument' /tmp/refused
		return
	fi
	as_user 'cat /m/theirs && echo mine >/m/file && mkdir /m/dir && ln -s file /m/link && mkfifo /m/dir/pipe'
	as_user 'chmod 640 /m/file && setfacl -m u:1000:rw /m/file && mv /m/file /m/dir/moved'
	fails touch /m/of-nobody
	fails chown 2000 /m/theirs
	(cd /m && describe .)
	umount /m
	describe .
) 2>&1
mount_khofs /k size=64m
if [ -e /k/kept ]; then
	# All ACLs of the former kernel are there, and count before and after a change.
	describe /k/kept >/tmp/kept
	diff /k/described /tmp/kept
	[ "$(cd /k/kept && as_user 'cat plain')" = "$(cat /k/kept/plain)" ]
	[ "$(cd /k/kept && as_user 'ls dir')" = "$(cat /k/listed)" ]
	rm -r /k/kept
fi
mkdir -p /t
mount -t tmpfs none /t -o size=64m
for place in /k /t; do
	mkdir $place/kept
	operations $place/kept >/tmp/$(basename $place)
	idmapped $place/kept >>/tmp/$(basename $place)
done
cat /tmp/k
diff /tmp/t /tmp/k
# The user may what the ACL grants; what the mask excludes fails.
grep -q 'user:1000:rwx.*#effective:r--' /tmp/k
grep -q '^default:user:1000:rwx' /tmp/k
grep -q '^three$' /k/kept/dir/sub/file
case $KHO_RELEASE in
6.1.*) [ ! -e /k/kept/mapped/dir ] ;;
*) [ "$(stat -c '%u %a' /k/kept/mapped/dir/moved)" = '0 660' ] ;;
esac

# ACLs count as attributes: a full file system refuses one and stays as it is.
mount_khofs /f name=f,nr_inodes=3
echo x >/f/file
echo y >/f/other
kho-guest until-full attributes /f/other --prefix trusted.a --bytes 100 >/dev/null
kho-guest until-full attributes /f/other --prefix trusted.b --bytes 0 >/dev/null
before=$(stat -c '%a %z' /f/file)
refused 'No space' setfacl -m u:1000:rwx /f/file
[ "$(stat -c '%a %z' /f/file)" = "$before" ]
rm /f/other
setfacl -m u:1000:rwx /f/file
umount /f
echo f >/sys/fs/khofs/release

describe /k/kept >/k/described
(cd /k/kept && as_user 'ls dir') >/k/listed
