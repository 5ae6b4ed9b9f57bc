# Functions for the scripts of full systems. The package is at $KHO_FILES; the second kernel comes from backports.

# Making initrds takes long under emulation, so only tests of initrds do it.
initrds() { sed -i "s/^update_initramfs=.*/update_initramfs=$1/" /etc/initramfs-tools/update-initramfs.conf; }
initrds no

# The newest installed kernel of a series, as the path of its image.
kernel() { ls -d /boot/vmlinuz-"$1".* | tail -n 1; }
initrd_of() { echo "/boot/initrd.img-${1#/boot/vmlinuz-}"; }

# Arms a kernel of a series: arm SERIES [OPTION…]
arm() {
	image=$(kernel "$1")
	shift
	kho load --arm "$image" --initrd "$(initrd_of "$image")" --reuse-cmdline "$@"
}

# kho replaces kexec-tools' program, as docs/src/operations/systemctl-kexec.md describes.
in_place_of_kexec() {
	tools=$(command -v kexec)
	dpkg-divert --local --rename --divert "$tools.distrib" --add "$tools"
	ln -s /usr/lib/kho/kexec "$tools"
}

# Debian's service arms a crash kernel. It may make an initrd for that first, without any output meanwhile.
kdump_tools() {
	systemctl enable --quiet kdump-tools.service
	systemctl start --no-block kdump-tools.service
	until [ "$(cat /sys/kernel/kexec_crash_loaded)" = 1 ]; do
		fails systemctl is-failed --quiet kdump-tools.service
		echo "kdump-tools is $(systemctl is-active kdump-tools.service)"
		sleep 10
	done
	systemctl start kdump-tools.service
}

# boot_loader_entry SERIES: an entry of the Boot Loader Specification, which systemd reads first on any machine.
boot_loader_entry() {
	image=$(kernel "$1")
	entries=/run/boot-loader-entries
	mkdir -p $entries/loader/entries
	ln -s "$image" $entries/linux
	ln -s "$(initrd_of "$image")" $entries/initrd
	printf '%s\n' "title Debian" "linux /linux" "initrd /initrd" "options $(cat /proc/cmdline) by_entry" \
		> $entries/loader/entries/debian.conf
}

fails() { if "$@"; then echo "succeeded and should not have: $*"; return 1; fi; }

says() {
	words=$1
	shift
	"$@" > /tmp/said 2>&1 || true
	grep -q -e "$words" /tmp/said || { cat /tmp/said; echo "does not say $words: $*"; return 1; }
}

# refused STATUS WORDS COMMAND…
refused() {
	status=$1
	words=$2
	shift 2
	code=0
	"$@" > /tmp/said 2>&1 || code=$?
	if [ "$code" != "$status" ] || ! grep -q -e "$words" /tmp/said; then
		cat /tmp/said
		echo "status $code, expected $status and $words: $*"
		return 1
	fi
}

# Waits until another process holds kho's lock.
locked() {
	until grep -q ":$(stat -c %i /run/kho/lock) " /proc/locks; do sleep 0.2; done
}

# All units have started, and none failed: the system is ready.
ready() {
	state=$(systemctl is-system-running --wait) || true
	[ "$state" = running ] || { systemctl --failed --no-pager; echo "the system is $state"; return 1; }
}

# complaints BOOT: warnings and errors of kho's units in a boot (0 this one, -1 the one before).
complaints() {
	journalctl -b "$1" --no-pager -o short-monotonic -p warning -u kho-restore.service -u kho-capture.service
	# Every kernel reports that a module which is not its own taints it.
	journalctl -b "$1" --no-pager -o short-monotonic -p warning -k | grep -i kho | grep -v 'taint' || true
}

clean_journal() {
	for boot in "$@"; do
		# A journal that cannot be read proves nothing.
		journalctl -b "$boot" --no-pager -n 1 > /dev/null || { echo "boot $boot has no journal"; return 1; }
		complaints "$boot" | grep -v '^-- ' > /tmp/complaints || true
		[ ! -s /tmp/complaints ] || { cat /tmp/complaints; echo "boot $boot complains"; return 1; }
	done
}

# journal_says BOOT WORDS
journal_says() {
	journalctl -b "$1" --no-pager -o cat > /tmp/journal
	grep -q -e "$2" /tmp/journal || {
		journalctl -b "$1" --no-pager -o short-monotonic -u kho-restore.service -u kho-capture.service
		echo "the journal of boot $1 does not say $2"
		return 1
	}
}

arrived_hop() { kho --json status | tr -d ' \n' | grep -q "\"hop\":$1,"; }

# PostgreSQL's cluster, in RAM: copied from the disk to a tmpfs that fstab mounts.
postgres_to_ram() {
	version=$(ls /usr/lib/postgresql)
	data=/var/lib/postgresql/$version
	cp -a "$data/main" /tmp/cluster
	echo "tmpfs $data tmpfs size=300M,mode=0755,uid=$(id -u postgres),gid=$(id -g postgres) 0 0" >> /etc/fstab
	systemctl daemon-reload
	mount "$data"
	mv /tmp/cluster "$data/main"
	systemctl enable --quiet --now postgresql
}
sql() { runuser -u postgres -- psql -qAt -v ON_ERROR_STOP=1 -d postgres -c "$1"; }

# to_khofs NAME PLACE OPTIONS: moves a place that fstab has on a tmpfs to khofs.
to_khofs() {
	owner="mode=$(stat -c %a "$2"),uid=$(stat -c %u "$2"),gid=$(stat -c %g "$2")"
	cp -a "$2" /tmp/moved
	umount "$2"
	sed -i "s|^tmpfs $2 .*|none $2 khofs name=$1,$3,$owner 0 0|" /etc/fstab
	grep -q "^none $2 khofs" /etc/fstab
	systemctl daemon-reload
	mount "$2"
	cp -a /tmp/moved/. "$2"
	rm -r /tmp/moved
}
