# Content of a mount that is absent in the next kernel must not be written to the directory beneath.
mkdir /srv/disk
mount -t tmpfs tmpfs /srv/disk
echo disk > /srv/disk/file
echo 'd /srv/disk replace' > /etc/kho/keep.d/disk.conf
echo '/dev/vdz /srv/disk ext4 nofail,x-systemd.device-timeout=2s 0 0' >> /etc/fstab
