# A crash kernel is armed, kho replaces kexec(8), a later version is installed meanwhile, and mallory waits.
ready
dpkg -i "$KHO_FILES"/kho_0.1.0_amd64.deb
# A directory in a world-writable place on a tmpfs: in the next boot mallory is there first.
mkdir /srv/drop /srv/target
echo "tmpfs /srv/drop tmpfs size=64M,mode=0777 0 0" >> /etc/fstab
systemctl daemon-reload
mount /srv/drop
echo untouched > /srv/target/file
mkdir -p /srv/drop/victim/deep /srv/drop/quiet
chmod 700 /srv/drop/quiet
secret=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
kho-guest same secret "$secret"
echo open > /srv/drop/victim/deep/open
for file in victim/file quiet/secret; do echo "$secret" > /srv/drop/$file; done
chmod 600 /srv/drop/quiet/secret /srv/drop/victim/file
kho-guest bytes 8000000 --seed 5 > /srv/drop/quiet/large
mkdir -p /var/lib/quiet && mount -t tmpfs -o size=64M tmpfs /var/lib/quiet
echo "tmpfs /var/lib/quiet tmpfs size=64M,mode=755 0 0" >> /etc/fstab
kho-guest make-tree /var/lib/quiet/tree --bytes 4000000
kho-guest hash-tree /var/lib/quiet/tree --same quiet
printf '%s\n' 'd /srv/drop/victim replace' 'd /srv/drop/quiet replace' 'd /var/lib/quiet/tree replace' > /etc/kho/keep.d/drop.conf
kho-guest hash-tree /srv/target --same target

# The attack: from before the restore until well after it.
cp /media/bin/kho-guest /usr/local/bin/
cat > /etc/systemd/system/mallory.service <<END
[Unit]
DefaultDependencies=no
After=local-fs.target systemd-tmpfiles-setup.service
Before=kho-restore.service
[Service]
Type=notify
NotifyAccess=all
User=mallory
ExecStart=/usr/local/bin/kho-guest mallory --drop /srv/drop --target /srv/target --loot /home/mallory/loot
TimeoutStartSec=60
END
mkdir -p /etc/systemd/system/sysinit.target.wants
ln -s ../mallory.service /etc/systemd/system/sysinit.target.wants/
systemctl daemon-reload

# A crash kernel is independent of kho and stays: here Debian's service loads it. kho passes requests that it does not
# serve to the kexec(8) that it replaces.
kdump_tools
says "ready to kdump" kdump-config show
[ "$(cat /sys/kernel/kexec_crash_loaded)" = 1 ]
says "crash kernel is armed" kho doctor
crash=$(kernel @OWN@)
in_place_of_kexec
next=$(kernel @OTHER@)
# Data for the kernel itself in the initrd, like CPU microcode: here an ACPI table, whose loading the kernel reports.
mkdir -p /tmp/early/kernel/firmware/acpi
sum=$(printf '%s' "SSDT" "KHOTST" "GUESTTST" "TEST" | od -An -v -tu1 | tr -s ' \n' '++')
sum=$(((256 - (0${sum%+} + 36 + 2 + 1 + 1) % 256) % 256))
table=/tmp/early/kernel/firmware/acpi/test.aml
printf 'SSDT\044\0\0\0\002' > $table
# shellcheck disable=SC2059
printf "\\$(printf %03o $sum)" >> $table
printf 'KHOTSTGUESTTST\001\0\0\0TEST\001\0\0\0' >> $table
[ "$(wc -c < $table)" = 36 ]
(cd /tmp/early && find . -depth | cpio --quiet -o -H newc) > /boot/early.img
cat /boot/early.img "$(initrd_of "$next")" > /boot/initrd.early
kexec -l "$next" --initrd=/boot/initrd.early --reuse-cmdline
[ "$(cat /sys/kernel/kexec_crash_loaded)" = 1 ]
says "is armed" kho status
kexec -u
[ "$(cat /sys/kernel/kexec_loaded) $(cat /sys/kernel/kexec_crash_loaded)" = "0 1" ]
kexec -p -u
[ "$(cat /sys/kernel/kexec_crash_loaded)" = 0 ]
kexec -p "$crash" --initrd="$(initrd_of "$crash")" --reuse-cmdline
kexec -l "$next" --initrd=/boot/initrd.early --reuse-cmdline
[ "$(cat /sys/kernel/kexec_loaded) $(cat /sys/kernel/kexec_crash_loaded)" = "1 1" ]
# One version arms, a later one captures.
dpkg -i "$KHO_FILES"/kho_0.1.0+later_amd64.deb
