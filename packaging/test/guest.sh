#!/bin/sh
# The packages in a full Debian system, one stage per boot: install and hand over; look, and make a capture fail; upgrade
# and purge. Talks on the second serial port; `cargo xtask dist --boot` reads it.
exec >/dev/ttyS1 2>&1
set -u
stage=$(cat /root/stage 2>/dev/null || echo 0)
echo $((stage + 1)) > /root/stage
say() { echo "TEST: $*"; }
end() { say "$*"; sync; systemctl poweroff; exit 0; }
check() { if "$@"; then say "ok: $*"; else say "FAILED: $*"; journalctl -b --no-pager -u kho-restore -u kho-capture -u redis-server; fi; }
say "stage $stage on $(uname -r), up $(cut -d' ' -f1 /proc/uptime)"
logs() {
	journalctl -b "${1:-0}" --no-pager -o short-monotonic -u kho-restore -u kho-capture | sed 's/^/    /'
	journalctl -b "${1:-0}" --no-pager -p warning -o short-monotonic | sed 's/^/  W /'
}
k612=$(ls /boot/vmlinuz-6.12* | head -1); k61=$(ls /boot/vmlinuz-6.1.* 2>/dev/null | head -1); k61=${k61:-$k612}
next() { echo "/boot/initrd.img-${1#/boot/vmlinuz-}"; }
case $stage in
0)
	check dpkg -i /root/kho.deb
	systemctl is-enabled kho-restore kho-capture; systemctl is-active kho-capture kho-restore
	check systemctl is-active --quiet kho-capture
	systemctl is-active redis-server; findmnt /var/lib/redis
	echo 'd /var/lib/redis skip-special replace' > /etc/kho/keep.d/redis.conf
	i=0; while [ $i -lt 500 ]; do echo "SET key:$i value-$i-$(printf %0100d $i)"; i=$((i+1)); done | redis-cli > /dev/null
	redis-cli dbsize
	check kho keep --from-config
	check kho doctor
	# What Debian does by itself: GRUB leaves no boot loader entries.
	systemctl kexec && say "FAILED: systemctl kexec found something to load"
	# kexec-tools and kho side by side: the same exit statuses.
	while read -r line; do
		kexec $line > /dev/null 2>&1; theirs=$?
		kho kexec $line > /tmp/said 2>&1; ours=$?
		if [ $theirs = $ours ]; then say "ok: kexec $line: $ours"; else say "FAILED: kexec $line: $theirs, kho kexec: $ours"; cat /tmp/said; fi
	done <<-END
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
		-l $k612 --initrd=/nonexistent
		-c -l $k612 --initrd=$(next $k612) --append=quiet
		-S -l
		-d -u
		-S -l
	END
	check kho load --arm --initrd "$(next $k612)" --reuse-cmdline $k612
	check [ "$(cat /sys/kernel/kexec_loaded)" = 1 ]
	kho status | grep "is armed" || say "FAILED: status does not say what is armed"
	say going; systemctl kexec; say "systemctl kexec: $?"
	;;
1)
	say "status:"; kho status
	logs
	echo "--- previous boot"; logs -1
	check [ "$(redis-cli dbsize)" = 500 ]
	check [ "$(redis-cli get key:499)" = "value-499-$(printf %0100d 499)" ]
	check test -s /run/kho/status.json
	check systemctl is-active --quiet kho-restore
	[ "$(kho --json status | grep -c '"hop": 1')" -ge 1 ] && say "ok: hop 1"
	# A capture that fails: a path that is gone when the content is taken.
	mkdir /srv/gone; echo 'd /srv/gone' > /etc/kho/keep.d/gone.conf
	check kho load --arm --on-failure plain --initrd "$(next $k61)" --reuse-cmdline $k61
	rmdir /srv/gone
	say going; systemctl kexec; say "systemctl kexec: $?"
	;;
2)
	say "after a failed capture:"; kho status; redis-cli dbsize
	logs -1
	check [ -z "$(kho --json status | grep '"generation"')" ]
	rm /etc/kho/keep.d/gone.conf
	# Upgrade, remove, purge under a running systemd.
	check dpkg -i /root/kho.deb
	check dpkg -r kho
	systemctl list-unit-files | grep kho
	check dpkg -P kho
	find /etc /lib /usr /var -xdev -name '*kho*' -not -path '/var/log/*' -not -path '/usr/lib/modules/*' | head
	end done
	;;
esac
