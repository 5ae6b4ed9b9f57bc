systemctl is-system-running --wait || true
journal_says 0 "keep.d:srv-disk is not restored: /srv/disk is not mounted"
fails test -e /srv/disk/file
mount -t tmpfs tmpfs /srv/disk
kho restore keep.d:srv-disk
[ "$(cat /srv/disk/file)" = disk ]
umount /srv/disk
sed -i '/^.dev.vdz /d' /etc/fstab
rm /etc/kho/keep.d/disk.conf
systemctl daemon-reload
systemctl reset-failed kho-restore.service
