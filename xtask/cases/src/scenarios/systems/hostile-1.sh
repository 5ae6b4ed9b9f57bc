case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
arrived_hop 1
systemctl is-active --quiet mallory.service
kho-guest hash-tree /srv/target --same target
# Repeated as often as an administrator may try.
tries=0
while [ $tries -lt 12 ]; do
	kho --quiet restore --force keep.d:srv-drop-victim keep.d:srv-drop-quiet > /dev/null 2>&1 && echo "restored in try $tries"
	tries=$((tries + 1))
done
kho-guest hash-tree /srv/target --same target
systemctl stop mallory.service
cat /home/mallory/loot
grep -qx "tried planting, 7 of 7" /home/mallory/loot
fails grep -q "^got" /home/mallory/loot
# Content out of mallory's reach is restored whatever she does.
kho-guest hash-tree /var/lib/quiet/tree --same quiet
# Content within her reach: all of it or nothing of it, and never at another place.
for name in victim quiet; do
	if journalctl -b --no-pager -o cat -u kho-restore.service | grep -q "^restored keep.d:srv-drop-$name"; then
		echo "$name was restored"
	else
		journalctl -b --no-pager -o cat -u kho-restore.service | grep "keep.d:srv-drop-$name"
		kho restore --force --into /root "keep.d:srv-drop-$name"
	fi
done
find /srv/target /etc/kho /run/kho -newer /proc/1 -ls
# The file in the deepest folder is at no other place of the root file system, wherever a link led.
find / -xdev -name open -type f ! -path /root/srv/drop/victim/deep/open -exec grep -lx open {} + >/tmp/elsewhere || true
if [ -s /tmp/elsewhere ]; then cat /tmp/elsewhere; exit 1; fi
kho-guest hash-tree /srv/target --same target
# A stage that mallory leaves behind would be a hole for the next restore.
find / -xdev -name '.kho-*' > /tmp/stages
find /srv/drop -name '.kho-*' -user root >> /tmp/stages
if [ -s /tmp/stages ]; then cat /tmp/stages; exit 1; fi
# The initrd began with data for the kernel itself, behind the data that kho puts before it.
journalctl -b -k --no-pager -o cat | grep "SSDT ACPI table found in initrd"
# Debian's service armed a crash kernel in this kernel too, and did not copy the option that only kho's initrd serves.
[ "$(cat /sys/kernel/kexec_crash_size)" -gt 0 ]
[ "$(cat /sys/kernel/kexec_crash_loaded)" = 1 ]
says "ready to kdump" kdump-config show
grep -q 'rdinit=/.kho/arrive' /proc/cmdline
cat /var/crash/kexec_cmd
grep -q 'root=/dev/vda' /var/crash/kexec_cmd
fails grep -q rdinit /var/crash/kexec_cmd
# A reboot is a reboot: on Debian 12 kexec-tools' hook loads a kernel meanwhile, through kho, which replaces kexec(8).
[ "$(cat /sys/kernel/kexec_loaded)" = 0 ]
kho-guest leave "systemctl reboot"
