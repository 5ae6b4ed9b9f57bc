# After a hop: the arrived content, and everything that can obstruct a restore.
K=/media/kernels/1/bzImage I=/media/kernels/1/initrd
kho-guest ranges --at-least 1
kho-guest fill

echo '== others'
closed_to_nobody

echo '== in the way'
expect 34 'nothing named nosuch arrived' -- kho get nosuch
expect 34 'what arrived: .*token' -- kho restore nosuch
expect 30 'token is on the list already' -- kho keep --name token -
mkdir -p /srv/data /mnt/into /mnt/link/srv /mnt/small
echo old >/srv/data/public
watch='/srv /mnt /etc'
expect 64 '/srv/data' -- kho restore
expect 64 '/srv/data' -- kho restore srv-data
ln -s /etc /srv/deep
expect 65 '/srv/deep.* is a symlink' -- kho restore srv-deep-tree
expect 65 '/srv/deep.* is a symlink' -- kho restore --force srv-deep-tree
[ "$(readlink /srv/deep)" = /etc ] && [ ! -e /etc/tree ] || wrong 'the symlink was followed'
rm /srv/deep
echo no directory >/srv/deep
expect 65 '/srv/deep.* is not a directory' -- kho restore --force srv-deep-tree
rm /srv/deep
ln -s /etc /mnt/link/srv/data
expect '64|65' '/srv/data' -- kho restore --into /mnt/link srv-data
ln -s /etc/passwd /mnt/link/token
expect 64 'token' -- kho restore --into /mnt/link token
holds kho restore --into /mnt/link --force token
[ ! -L /mnt/link/token ] && grep -q '^root:' /etc/passwd || wrong 'a blob was written through a symlink'
expect 31 '/mnt/missing' -- kho restore --into /mnt/missing

echo '== a full disk'
mount -t tmpfs -o size=1m tmpfs /mnt/small
expect 66 'No space left' -- kho restore --into /mnt/small srv-big
expect 66 'No space left' -- kho restore --into /mnt/small bulk
[ -z "$(ls -A /mnt/small)" ] || wrong "something is left: $(ls -lA /mnt/small)"
umount /mnt/small

echo '== rules that cannot be read at boot'
boot() {
	got=0
	kho restore --boot >/tmp/out 2>&1 || got=$?
	cat /tmp/out
}
mkdir -p /etc/kho/keep.d
printf 'd /srv/rules privileged\nnonsense\n' >/etc/kho/keep.d/rules.conf
boot
[ $got = 35 ] || wrong "exit status $got, expected 35, of a boot with a bad rule"
grep -q 'keep.d:srv-rules is NOT RESTORED' /tmp/out || wrong 'not said that the entry waits'
[ ! -e /srv/rules ] || wrong 'restored without its rule'
kho keep --list | grep -q 'keep.d:srv-rules .*arrived, not yet restored' || wrong 'not carried on'
# Entries that kho keep added do not wait. One of them finds its place occupied.
[ "$(cat /srv/deep/tree/file)" = deep ] || wrong 'what has no rule was not restored'
echo 'd /srv/rules privileged' >/etc/kho/keep.d/rules.conf
boot
[ $got = 64 ] || wrong "exit status $got, expected 64, of a boot with a mended rule"
[ "$(stat -c %a /srv/rules/program)" = 4755 ] || wrong 'not restored as its rule says'

echo '== all is still there'
watch=
holds kho restore --into /mnt/into
[ "$(cat /mnt/into/srv/data/public)" = public ] || wrong 'not what was loaded'
holds kho restore --force
[ "$(cat /srv/data/public)" = public ] || wrong 'not what was loaded'
[ "$(cat /srv/deep/tree/file)" = deep ] || wrong 'not what was loaded'
kho-guest bytes 5000000 --seed 3 | cmp - /srv/big || wrong 'not what was loaded'
kho get bulk >/tmp/bulk
kho-guest bytes 3000000 --seed 4 | cmp - /tmp/bulk || wrong 'not what was loaded'
[ "$(kho get token)" = sesame ] || wrong 'not what was loaded'
odd=$(printf '/srv/caf\351 \033[2J')
[ "$(cat "$odd/file")" = odd ] || wrong 'not what was loaded'
holds kho status
grep -qF '/srv/caf\xe9 \x1b[2J' /tmp/out || wrong 'a path that is not text is not shown'
holds kho status --json
grep -qF '"path": "/srv/caf\\xe9 \\x1b[2J"' /tmp/out || wrong 'a path that is not text is not in the document'
holds kho restore --boot
grep -qF 'caf\\xe9' /run/kho/status.json || wrong 'status.json lacks a path'
fails nobody cat /srv/data/secret
fails nobody cat /mnt/into/token
fails nobody 'cat /sys/kernel/boot_params/setup_data/0/data'

echo '== a limited number of loads'
# The scratch of this chain is recorded: neither kho_scratch=1M of this kernel nor an option has an effect now.
sysctl -w kernel.kexec_load_limit_reboot=2
holds kho load "$K" --initrd "$I" --scratch 1M
[ "$(cat /proc/sys/kernel/kexec_load_limit_reboot)" = 1 ] || wrong 'a load took more than one'
expect 11 'takes two' -- kho load "$K" --initrd "$I"
sysctl -w kernel.kexec_load_limit_reboot=0
expect 11 'kexec_load_limit_reboot is used up' -- kho load "$K" --initrd "$I"
expect 11 'kexec_load_limit_reboot is used up' -- kho unload
still_ours
finish
