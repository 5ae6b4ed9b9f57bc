root=$1
printf '%s\n' '/dev/vda / ext4 rw,noatime 0 1' '/dev/vdb /media ext4 ro 0 0' \
	"tmpfs /var/lib/redis tmpfs size=64M,mode=0750,uid=$(chroot "$root" id -u redis),gid=$(chroot "$root" id -g redis) 0 0" \
	> "$root/etc/fstab"
echo guest > "$root/etc/hostname"
printf '127.0.0.1 localhost guest\n' > "$root/etc/hosts"
mkdir -p "$root/var/log/journal" "$root/media"
chroot "$root" useradd --create-home --shell /bin/sh mallory
systemctl --root="$root" --quiet mask serial-getty@ttyS0.service getty@tty1.service \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
	systemd-networkd-wait-online.service
systemctl --root="$root" --quiet disable postgresql.service
cat > "$root/etc/systemd/system/guest-test.service" <<END
[Unit]
Description=The test of this guest
RequiresMountsFor=/media
[Service]
ExecStart=/media/bin/kho-guest system
KillMode=mixed
END
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../guest-test.service "$root/etc/systemd/system/multi-user.target.wants/"
