# In the first kernel, where nothing arrived: all kinds of input for keep, load and exec.
K=$KHO_NEXT_KERNEL I=$KHO_NEXT_INITRD C=$KHO_NEXT_CMDLINE
# The command line of this kernel has kho_scratch=1M.
load() {
	kho load "$K" --initrd "$I" --append "$C" --scratch 160M "$@"
}
load_with() {
	kho load "$K" --initrd "$I" --scratch 160M --append "$@"
}

echo '== nothing arrived, nothing loaded'
expect 60 'nothing arrived' -- kho restore
expect 60 'nothing arrived' -- kho get token
expect 60 'nothing arrived' -- kho dump
expect 53 'no kernel is loaded' -- kho exec
expect 53 'no kernel is loaded' -- kho unload

# Nothing is kept: kho leaves a kernel that is not relocatable to kexec(8), which is not installed here.
cp "$K" /tmp/fixed-place
printf '\0' | dd of=/tmp/fixed-place bs=1 seek=$((0x234)) conv=notrunc 2>/dev/null
expect 255 'not relocatable is loaded by kexec\(8\)' -- kho kexec -l /tmp/fixed-place --append=x

mkdir -p /srv/data /srv/deep/tree
echo secret >/srv/data/secret
chmod 600 /srv/data/secret
echo public >/srv/data/public
echo deep >/srv/deep/tree/file
kho-guest bytes 5000000 --seed 3 >/srv/big
kho keep /srv/data /srv/deep/tree /srv/big
# A path may hold any bytes.
odd=$(printf '/srv/caf\351 \033[2J')
mkdir "$odd"
echo odd >"$odd/file"
kho keep "$odd" >/tmp/kept
grep -qF '/srv/caf\xe9 \x1b[2J' /tmp/kept
kho-guest bytes 3000000 --seed 4 | kho keep --name bulk -
echo sesame | kho keep --name token -
mkdir -p /srv/rules /etc/kho/keep.d
echo program >/srv/rules/program
chmod 4755 /srv/rules/program
echo 'd /srv/rules privileged' >/etc/kho/keep.d/rules.conf
kho keep --from-config
load
still_ours
watch=/srv

echo '== names'
long=$(head -c 300 /dev/zero | tr '\0' n)
expect 30 'may not be `..`' -- kho keep --name .. -
expect 30 'may not be `.`' -- kho keep --name . -
expect 30 'a `/`' -- kho keep --name ../../etc/passwd -
expect 30 '300 bytes' -- kho keep --name "$long" -
expect 30 'empty' -- kho keep --name '' -
expect 30 'control character 0x0a' -- kho keep --name 'two
lines' -
expect 30 'control character 0x1b' -- kho keep --name "$(printf 'red\033[31m')" -
expect 30 'UTF-8' -- kho keep --name "$(printf 'a\377')" -
expect 30 'token is on the list already' -- kho keep --name token -
expect 30 'token is on the list already' -- kho keep --name token /srv/deep
expect 30 'belong to entries that keep.d puts' -- kho keep --name keep.d:token -
expect 30 'is kept already, as srv-data' -- kho keep --name other /srv/data
expect 34 'nosuch' -- kho keep --remove nosuch
expect 34 'nosuch' -- kho keep --remove token nosuch
expect 2 'kho keep --name NAME -' -- kho keep -

echo '== sources'
kho-guest socket /tmp/socket
mkfifo /tmp/fifo
expect 31 '/tmp/socket: it is a socket' -- kho keep /tmp/socket
expect 31 '/tmp/fifo: it is a named pipe' -- kho keep /tmp/fifo
expect 31 '/dev/null: it is a character device' -- kho keep /dev/null
expect 31 '/dev/vda: it is a block device' -- kho keep /dev/vda
expect 31 '/srv/missing' -- kho keep /srv/missing
mkdir /tmp/beside
expect 31 '/srv/missing' -- kho keep /tmp/beside /srv/missing
rmdir /tmp/beside
expect 31 'proc' -- kho keep /proc
expect 31 'proc' -- kho keep /proc/version
expect 31 'sysfs' -- kho keep /sys/kernel
expect 31 '/srv and /srv/data, which is kept as srv-data, overlap' -- kho keep /srv
expect 31 'overlap' -- kho keep /srv/data/public
expect 31 '/: it holds' -- kho keep /
expect 31 "kho's own state" -- kho keep /run
expect 31 "kho's own state" -- kho keep /run/kho
still_ours

echo '== images'
size=$(stat -c %s "$K")
damaged() {
	cp "$K" /tmp/damaged
	printf "$2" | dd of=/tmp/damaged bs=1 seek=$(($1)) conv=notrunc 2>/dev/null
}
head -c 700 "$K" >/tmp/short
head -c $((size / 2)) "$K" >/tmp/half
: >/tmp/empty
{ printf 'MZ'; head -c 54 /dev/zero; printf 'ARM\144'; head -c 5000 /dev/zero; } >/tmp/arm64
gzip -c /tmp/half >/tmp/gzip
expect 20 'truncated' -- kho load /tmp/short --initrd "$I"
expect 20 'truncated' -- kho load /tmp/half --initrd "$I"
for size_of_short in 100 300 513 $((size - 16)) $((size - 1)); do
	head -c $size_of_short "$K" >/tmp/short
	expect 20 'the bzImage is truncated' -- kho load /tmp/short --initrd "$I"
done
expect 20 'empty' -- kho load /tmp/empty --initrd "$I"
expect 20 'No such file' -- kho load /tmp/none --initrd "$I"
expect 20 'a directory' -- kho load /srv --initrd "$I"
expect 20 'not a regular file' -- kho load /tmp/fifo --initrd "$I"
expect 20 'arm64' -- kho load /tmp/arm64 --initrd "$I"
expect 20 'ELF' -- kho load /bin/busybox --initrd "$I"
expect 20 'gzip' -- kho load /tmp/gzip --initrd "$I"
expect 20 'cpio' -- kho load "$I" --initrd "$I"
damaged 0x202 'XXXX'
expect 20 'needed is a bzImage' -- kho load /tmp/damaged --initrd "$I"
expect 20 'not relocatable.*with nothing kept, kho kexec starts it' -- kho load /tmp/fixed-place --initrd "$I"
expect 255 'not relocatable' -- kho kexec -l /tmp/fixed-place --append=x
damaged 0x206 '\015\002'
expect 23 'SETUP_INDIRECT' -- kho load /tmp/damaged --initrd "$I"
expect 23 'SETUP_INDIRECT' -- kho plan /tmp/damaged --initrd "$I"
expect 23 'mem is on its command line' -- kho plan "$K" --initrd "$I" --scratch 160M --append "$C mem=1G" --enter kernel
damaged 0x248 '\377\377\377\377'
expect 23 'payload_offset at 0x248 is 0xffffffff' -- kho plan /tmp/damaged --initrd "$I" --scratch 160M --enter kernel
holds kho plan /tmp/damaged --initrd "$I" --scratch 160M
grep -q 'the bzImage, which unpacks itself: .*payload_offset' /tmp/out || wrong 'nobody says why the bzImage starts'
if grep -qw la57 /proc/cpuinfo; then
	damaged 0x236 '\037'
	expect 23 'five-level paging' -- kho load /tmp/damaged --initrd "$I"
fi
damaged 0x1f1 '\377'
expect 20 'truncated|corrupt' -- kho load /tmp/damaged --initrd "$I"
damaged 0x260 '\0\0\0\0'
expect 20 'corrupt.*init_size' -- kho load /tmp/damaged --initrd "$I"
damaged 0x206 '\4\2'
expect 20 'protocol 2.4' -- kho load /tmp/damaged --initrd "$I"
damaged 0x236 '\0\0'
expect 20 '32-bit' -- kho load /tmp/damaged --initrd "$I"
expect 21 '/tmp/none' -- kho load "$K" --initrd /tmp/none
expect 21 'empty' -- kho load "$K" --initrd /tmp/empty
expect 21 'ELF' -- kho load "$K" --initrd /bin/busybox
expect 21 'bzImage' -- kho load "$K" --initrd "$K"
expect 21 '/srv' -- kho load "$K" --initrd /srv
expect 21 '/tmp/none' -- kho load "$K" --initrd /tmp/none --initrd "$I"
expect 21 'ELF' -- kho load "$K" --initrd "$I" --initrd /bin/busybox
gzip -c "$I" >/tmp/packed
holds kho plan "$K" --initrd /tmp/packed --scratch 160M
head -c $(($(stat -c %s /tmp/packed) - 9)) /tmp/packed >/tmp/cut
expect 21 'cut short or damaged: its gzip part at 0x0' -- kho load "$K" --initrd /tmp/cut
head -c $(($(stat -c %s "$I") / 2)) "$I" >/tmp/cut
expect 21 'cut short: its cpio archive' -- kho load "$K" --initrd /tmp/cut
expect 21 'holds no cpio archive' -- kho load "$K" --initrd /tmp/gzip
printf '\004\042\115\030modern' >/tmp/modern
expect 21 'lz4 -l' -- kho load "$K" --initrd /tmp/modern
rm /tmp/packed /tmp/cut /tmp/modern
expect 1 '/tmp/none' -- kho kexec -l "$K" --initrd=/tmp/none "--initrd=$I" "--append=$C"
still_ours

echo '== command lines'
line=$(head -c 3000 /dev/zero | tr '\0' x)
expect 22 'takes at most 2047' -- load_with "$line"
line=$(head -c 2040 /dev/zero | tr '\0' x)
expect 22 'the 20 that kho adds' -- load_with "$line"
expect 22 'line break|newline|line feed' -- load_with 'a
b'
expect 22 'quote' -- load_with 'a="b'
expect 2 'cannot be used with' -- kho load "$K" --initrd "$I" --no-initrd
# Without --command-line a load uses this kernel's command line. An option added to a line without a root file system is
# not enough.
holds kho plan "$K" --initrd "$I" --scratch 160M --json
grep -q '"command_line": ".*kho_scratch=1M' /tmp/out || wrong 'the line of this kernel is not taken'
cp "$K" /tmp/vmlinuz-test
cp "$I" /tmp/initrd.img-test
holds kho plan /tmp/vmlinuz-test --scratch 160M
grep -q 'the initrd is /tmp/initrd.img-test' /tmp/out || wrong 'the initrd beside the kernel is not taken'
holds kho plan /tmp/vmlinuz-test --no-initrd --scratch 160M
rm /tmp/initrd.img-test
holds kho plan /tmp/vmlinuz-test --scratch 160M
grep -q 'warning: no initrd is named, and none is beside /tmp/vmlinuz-test' /tmp/out || wrong 'nobody says that there is no initrd'
rm /tmp/vmlinuz-test
sed 's/$/ root=\/dev\/vda/' /proc/cmdline >/tmp/cmdline
mount --bind /tmp/cmdline /proc/cmdline
expect 22 'has no root=' -- load_with quiet
expect 22 'has no root=' -- kho plan "$K" --initrd "$I" --scratch 160M --append quiet
holds kho plan "$K" --initrd "$I" --scratch 160M --command-line quiet
umount /proc/cmdline
expect 14 'exactmap' -- load_with "$C memmap=exactmap"

echo '== scratch and headroom'
expect 42 'scratch is 0x100000 bytes' -- kho load "$K" --initrd "$I" --append "$C"
expect 42 'scratch is 0x100000 bytes' -- kho load "$K" --initrd "$I" --append "$C" --scratch 1M
expect 42 'banana' -- kho load "$K" --initrd "$I" --append "$C" --scratch banana
expect 42 'zero' -- kho load "$K" --initrd "$I" --append "$C" --scratch 0
expect 42 'no contiguous place' -- kho load "$K" --initrd "$I" --append "$C" --scratch 1000G
expect 40 'needs .* of free memory' -- load_with "$C crashkernel=900M"
expect 40 'needs .* of free memory' -- load_with "$C hugepages=450"
expect 40 'needs .* of free memory' -- load_with "$C hugepagesz=1G hugepages=1"
expect 2 'max-ranges 1 is not between' -- load --max-ranges 1
expect 2 'max-ranges 1000 is not between' -- load --max-ranges 1000
still_ours

echo '== size and number of what is kept'
head -c $((300 << 20)) /dev/zero >/tmp/large
kho keep --name large /tmp/large
# The kernel would accept this size, but not beside so large a scratch. The pages of a loaded image are reserved and may
# lie anywhere, so a contiguous place of this size exists only without an image.
holds kho unload
expect 33 'at most .*iB fit' -- kho load "$K" --initrd "$I" --append "$C" --scratch 700M
# A page in every 128 MiB that the next kernel must not use: two ranges cannot hold the content.
holes=
for mib in $(seq 128 128 896); do holes="$holes memmap=4K\$${mib}M"; done
expect 41 'separate reservations and early boot has room for 2' -- \
	kho load "$K" --initrd "$I" --append "$C$holes" --scratch 110M --max-ranges 2
head -c $((300 << 20)) /dev/zero >>/tmp/large
expect 44 'at most .*iB of kept content fit' -- load
kho keep --remove large
rm /tmp/large
load
still_ours

echo '== sources that change'
mkdir /srv/busy /srv/swap /srv/special
for number in $(seq 50); do kho-guest bytes 200000 --seed $number >/srv/busy/$number; done
kho keep /srv/busy
load
watch=
while :; do echo more >>/srv/busy/49; done &
writer=$!
expect 32 '/srv/busy/49.* changed while it was being kept' -- load
kill $writer
wait $writer || true
kho keep --remove /srv/busy
cp -r /srv/busy /srv/swap/inner
kho keep /srv/swap
load
while :; do
	mv /srv/swap /srv/aside
	ln -s /etc /srv/swap
	rm /srv/swap
	mv /srv/aside /srv/swap
done 2>/dev/null &
swapper=$!
# The load may carry the directory as it is at one moment; it must refuse anything else that it finds.
got=0
for try in $(seq 40); do
	fingerprint >/tmp/before
	load >/tmp/out 2>/tmp/lost && continue
	got=$?
	break
done
expect "$got" '/srv/swap' -- sh -c "cat /tmp/lost >&2; exit $got"
case $got in 31 | 32) ;; *) wrong "exit status $got of a load while the directory is swapped" ;; esac
fingerprint | cmp -s - /tmp/before || wrong 'a load that failed changed something'
kill $swapper
wait $swapper || true
# A mv that the killed process had begun may end only now.
[ -d /srv/swap ] || mv /srv/aside /srv/swap || [ -d /srv/swap ]
kho keep --remove /srv/swap
kho-guest socket /srv/special/socket
echo file >/srv/special/file
kho keep /srv/special
expect 31 '/srv/special/socket.* is a socket' -- load
kho keep --remove srv-special
kho keep --skip-special /srv/special
mv /srv/special /srv/gone
expect 31 '/srv/special' -- load
mv /srv/gone /srv/special
load
still_ours
watch=/srv

echo '== exec of something else than was meant'
echo changed >>/srv/data/public
expect 51 'changed since the load: /srv/data' -- kho exec
rm /srv/data/public
expect 51 'changed since the load: /srv/data' -- kho exec
mv /srv/data /srv/away
expect 51 'changed since the load: .*/srv/data' -- kho exec
mv /srv/away /srv/data
echo public >/srv/data/public
load
kho keep --name late - </dev/null
expect 51 'the list of what is kept changed' -- kho exec
kho keep --remove late
still_ours

echo '== written through a mapping'
# Pages of the mapping are writable from the first pass on, so no time stamp shows later writes.
mapped=/srv/data/mapped
head -c 65536 /dev/zero >$mapped
kho-guest map write $mapped >/tmp/writer &
writer=$!
stop() {
	kill -STOP $writer
	until grep -q '^State:.*stopped' /proc/$writer/status; do sleep 0.1; done
}
# Lets the writer write all of the file once more, then stops it.
writes() {
	cp $mapped /tmp/mapped
	while cmp -s $mapped /tmp/mapped || ! kho-guest map check $mapped >/dev/null; do
		kill -CONT $writer
		sleep 0.1
		stop
	done
}
until grep -q writing /tmp/writer; do sleep 0.1; done
stop
writes
time=$(stat -c '%y %z' $mapped)
load 2>/tmp/warned
grep -q "/srv/data: process $writer (kho-guest) has files of it mapped" /tmp/warned || wrong "no word of who can write: $(cat /tmp/warned)"
writes
[ "$(stat -c '%y %z' $mapped)" = "$time" ] || wrong 'the time stamps show it, and this test shows nothing'
expect 51 'changed since the load: /srv/data; .*mapping' -- kho exec
# A capture at a shutdown without an armed kernel.
got=0
kho capture 2>/tmp/err || got=$?
[ $got = 51 ] && grep -q 'NOTHING IS HANDED OVER: changed since the load: /srv/data' /tmp/err || wrong "a capture says $got: $(cat /tmp/err)"
[ "$(cat /sys/kernel/kexec_loaded)" = 0 ] || wrong 'what is out of date is still loaded'
load 2>/tmp/warned
still_ours
# A file that is written during the read has the state of no single moment.
kill -CONT $writer
got=0
for try in $(seq 40); do
	load >/tmp/out 2>/tmp/err && continue
	got=$?
	break
done
[ $got = 32 ] && grep -q "/srv/data changed while it was read: process $writer" /tmp/err || wrong "a load of what is being written says $got: $(cat /tmp/err)"
kill -KILL $writer
wait $writer || true
rm $mapped
load 2>/tmp/warned
[ ! -s /tmp/warned ] || wrong "warned for nothing: $(cat /tmp/warned)"
still_ours
kho-guest load-stranger
expect 52 'somebody else' -- kho exec
expect 52 'somebody else' -- kho unload
kho status --json | grep -q '"by": "unknown"' || wrong 'kho status takes the image for its own'
holds kho unload --force
expect 53 'no kernel is loaded' -- kho exec
kho-guest load-stranger
expect 52 'not by kho' -- kho exec
load
still_ours

echo '== whose image is loaded cannot be told'
told=$(cat /proc/sys/kernel/kptr_restrict)
sysctl -w kernel.kptr_restrict=2
expect 57 'cannot tell whether .*kptr_restrict' -- kho exec
expect 57 'cannot tell whether .*kptr_restrict' -- kho unload
expect 57 'cannot tell whether .*kptr_restrict' -- kho reboot "$K" --initrd "$I" --append "$C" --scratch 160M
kho doctor | grep -q 'warn *loaded-image .*kho exec and kho reboot start none' || wrong 'kho doctor does not say it'
holds load
grep -q 'warning: kho exec will not start this image' /tmp/out || wrong 'kho load does not say it'
# A capture that cannot tell whether the image is kho's has failed: an image that may be out of date must not stay
# loaded.
got=0
kho capture >/tmp/out 2>&1 || got=$?
[ $got = 57 ] || wrong "exit status $got, expected 57, of a capture that cannot tell"
grep -q 'NOTHING IS HANDED OVER' /tmp/out || wrong 'the capture does not say it'
[ "$(cat /sys/kernel/kexec_loaded)" = 0 ] || wrong 'the image is still loaded'
sysctl -w kernel.kptr_restrict=$told

echo '== keep.d that changes after the load'
mkdir -p /etc/kho/keep.d
rules=/etc/kho/keep.d/late.conf
echo 'd- /srv/late' >$rules
load
still_ours
mkdir /srv/late
echo late >/srv/late/file
expect 51 'changed since the load; keep.d adds keep.d:srv-late' -- kho exec
holds sh -c "kho plan '$K' --initrd '$I' --scratch 160M | grep -q keep.d:srv-late"
fails sh -c 'kho keep --list | grep -q srv-late'
load
holds sh -c 'kho keep --list | grep -q keep.d:srv-late'
still_ours
rm -r /srv/late
expect 51 'changed since the load; keep.d takes off keep.d:srv-late' -- kho exec
echo 'd /srv/late' >$rules
expect 31 '/srv/late does not exist' -- load
expect 31 '/srv/late does not exist' -- kho plan "$K" --initrd "$I" --scratch 160M
expect 51 'changed since the load: .*/srv/late does not exist' -- kho exec
echo 'd srv' >$rules
expect 35 'late.conf:1' -- load
expect 35 'late.conf:1' -- kho exec
still_ours
# An entry that the load left out does not make the loaded content out of date; an entry that appears later does. The
# capture reports that, and leaves nothing loaded.
mkdir /srv/late
kho-guest socket /srv/late/socket
echo 'd /srv/late best-effort' >$rules
load 2>/tmp/said
holds grep -q 'warning: keep.d:srv-late is not handed over' /tmp/said
holds kho capture
still_ours
echo 'd- /srv/later' >$rules
load
mkdir /srv/later
watch=
got=0
kho capture 2>/tmp/said || got=$?
expect 51 'NOTHING IS HANDED OVER: .*keep.d adds keep.d:srv-later' -- sh -c "cat /tmp/said >&2; exit $got"
expect 53 'no kernel is loaded' -- kho exec
watch=/srv
rm -r $rules /srv/late /srv/later

echo '== what is armed'
# The place is not mounted any more: the directory beneath it is not the one that was kept.
mkdir /srv/mounted
mount -t tmpfs tmpfs /srv/mounted
echo kept >/srv/mounted/file
kho keep /srv/mounted
arm() {
	kho load --arm "$K" --initrd "$I" --append "$C" --scratch 160M "$@"
}
arm
umount /srv/mounted
got=0
kho capture 2>/tmp/said || got=$?
watch=
expect 31 'NOTHING IS HANDED OVER: srv-mounted: /srv/mounted is not mounted any more' -- sh -c "cat /tmp/said >&2; exit $got"
expect 53 'no kernel is loaded' -- kho exec
kho keep --remove srv-mounted
rmdir /srv/mounted
# No capture began: the end of the shutdown does what the administrator chose.
for how in cold plain; do
	arm --on-failure $how
	holds [ "$(cat /sys/kernel/kexec_loaded)" = 1 ]
	got=0
	kho capture --at-end 2>/tmp/said || got=$?
	expect 1 'NOTHING IS HANDED OVER: the system went down without kho-capture.service' -- sh -c "cat /tmp/said >&2; exit $got"
	holds sh -c "kho status | grep -q '^captured  FAILED at .*went down without kho-capture.service'"
	[ $how = plain ] && left=1 || left=0
	holds [ "$(cat /sys/kernel/kexec_loaded)" = $left ]
	fails [ -e /run/kho/armed.json ]
done
# After a successful capture --at-end does nothing.
arm
holds kho capture
touch /run/kho/captured
holds kho capture --at-end
still_ours
# A kernel that another program loaded hands nothing over: that is a failure while entries are kept.
for how in plain cold; do
	kho unload
	kho-guest load-stranger
	got=0
	kho capture --on-failure $how 2>/tmp/said || got=$?
	expect 52 'NOTHING IS HANDED OVER: a kernel is loaded, but not by kho, and [0-9]+ entries are kept' -- sh -c "cat /tmp/said >&2; exit $got"
	[ $how = plain ] && left=1 || left=0
	holds [ "$(cat /sys/kernel/kexec_loaded)" = $left ]
	[ $how = cold ] || load
done
watch=/srv
load
still_ours

echo '== two at once'
mkfifo /tmp/slow
kho keep --name slow - </tmp/slow &
other=$!
exec 5>/tmp/slow
until grep -q $other /run/kho/lock; do sleep 0.1; done
kill -STOP $other
expect 54 "another kho is working \(process $other\)" -- load
expect 54 "process $other" -- kho keep /srv/deep
expect 54 "process $other" -- kho exec
expect 54 "process $other" -- kho unload
kill -KILL $other
wait $other || true
exec 5>&-
still_ours
load

echo '== not root'
mkdir -m 777 /tmp/nobody
expect 10 'run as root' -- nobody "kho load $K --initrd $I"
expect 10 'run as root' -- nobody "kho plan $K --initrd $I"
expect 10 'run as root' -- nobody kho exec
expect 10 'run as root' -- nobody kho unload --force
expect 10 'run as root' -- nobody kho keep /tmp/nobody
expect 10 'run as root' -- nobody kho keep --list
expect 10 'run as root' -- nobody kho status
expect 10 'run as root' -- nobody kho restore
expect 10 'lacks|run as root' -- nobody "kho --state-dir /tmp/nobody/state load $K --initrd $I"
still_ours

echo '== a read-only state directory'
mkdir /tmp/fixed
mount -t tmpfs tmpfs /tmp/fixed
mount -o remount,ro /tmp/fixed
expect 16 'Read-only file system' -- kho --state-dir /tmp/fixed/kho keep /srv/deep
grep -q 'run as root' /tmp/err && wrong 'root is told to be root' || true
umount /tmp/fixed

echo '== kexec_load_disabled'
# The handover has the content of load time, not this line.
echo later >>/srv/data/public
sysctl -w kernel.kexec_load_disabled=1
expect 11 'kexec_load_disabled is 1' -- load
expect 11 'kexec_load_disabled is 1' -- kho plan "$K" --initrd "$I" --scratch 160M
expect 11 'kexec_load_disabled is 1' -- kho unload
expect 51 'changed since the load' -- kho exec
still_ours
finish
kho-guest loaded --stale-ok
