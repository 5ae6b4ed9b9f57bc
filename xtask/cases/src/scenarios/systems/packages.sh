# Installed, upgraded, removed and purged under a running systemd; and beside kexec-tools.
ready
dpkg -i "$KHO_FILES"/kho_0.1.0_amd64.deb
for unit in kho-restore kho-capture; do systemctl is-enabled --quiet $unit.service; done
systemctl is-active --quiet kho-capture.service
# Restoring waits for the next boot: an installation must not restore anything.
fails systemctl is-active --quiet kho-restore.service
kho --version

# An upgrade replaces configuration that no administrator changed, and keeps changed files; the armed load stays armed.
dpkg -i "$KHO_FILES"/kho_0.1.0+later_amd64.deb
grep -q 'the later version' /etc/default/kho
dpkg -i "$KHO_FILES"/kho_0.1.0_amd64.deb
fails grep -q 'the later version' /etc/default/kho
echo '# mine' >> /etc/default/kho
mkdir /srv/kept
echo 'd /srv/kept' > /etc/kho/keep.d/mine.conf
arm @OTHER@
began=$(systemctl show -p ActiveEnterTimestampMonotonic kho-capture.service)
dpkg --force-confold -i "$KHO_FILES"/kho_0.1.0+later_amd64.deb
grep -q '# mine' /etc/default/kho
fails grep -q 'the later version' /etc/default/kho
grep -q 'the later version' /etc/default/kho.dpkg-dist
test -e /etc/kho/keep.d/mine.conf
[ "$began" = "$(systemctl show -p ActiveEnterTimestampMonotonic kho-capture.service)" ]
says "is armed" kho status
systemctl daemon-reload
[ "$(systemctl show -p NeedDaemonReload --value kho-capture.service)" = no ]

# kexec-tools and kho, line by line: the same exit statuses.
side_by_side() {
	theirs=0
	kexec "$@" > /tmp/theirs 2>&1 || theirs=$?
	ours=0
	kho kexec "$@" > /tmp/ours 2>&1 || ours=$?
	if [ $theirs != $ours ]; then
		echo "kexec $*: $theirs, kho kexec: $ours"
		cat /tmp/theirs /tmp/ours
		return 1
	fi
	echo "both say $ours: kexec $*"
}
kho unload
[ "$(cat /sys/kernel/kexec_loaded)" = 0 ]
says "nothing" kho status
test ! -e /run/kho/armed
next=$(kernel @OTHER@)
while read -r line; do
	# shellcheck disable=SC2086
	side_by_side $line
done <<END
--version
--help
-q
--frobnicate
--re
--append
--load=x
-S
-S -l
-l
-l /nonexistent
-l /etc/passwd
-l --mem-min=12z /etc/passwd
-u --initrd=x
-e
-u
-c -l $next --initrd=/nonexistent
-l $next --initrd=$(initrd_of "$next") --reuse-cmdline
-S
-u
-c -l $next --initrd=$(initrd_of "$next") --append=quiet
-u
-s -u
-d -u
-S -l
END
# -s cannot hand over, and kho refuses it while entries are kept.
refused 255 "cannot hand over what is kept" kho kexec -s -l "$next" --initrd="$(initrd_of "$next")" --reuse-cmdline
rm /etc/kho/keep.d/mine.conf
side_by_side -s -l "$next" --initrd="$(initrd_of "$next")" --reuse-cmdline
side_by_side -u

# Removed: no load stays armed that no program could complete, no service runs, only configuration is left.
arm @OTHER@
dpkg -r kho
[ "$(cat /sys/kernel/kexec_loaded)" = 0 ]
fails systemctl cat kho-capture.service
fails systemctl is-active --quiet kho-capture.service
test -e /etc/default/kho
test ! -e /usr/bin/kho
# Purged: nothing is left.
dpkg --force-confold -i "$KHO_FILES"/kho_0.1.0_amd64.deb
dpkg -P kho
find / -xdev \( -name 'kho*' -o -name '_kho*' -o -name '.kho*' -o -name 'keep.d*' \) ! -path '/var/log/*' > /tmp/left
find /run -name '*kho*' >> /tmp/left
if [ -s /tmp/left ]; then cat /tmp/left; exit 1; fi
dpkg --audit
ready
clean_journal 0
