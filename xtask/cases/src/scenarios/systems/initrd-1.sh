ready
case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
arrived_hop 1
says "carrier   the initrd" kho status
says "the initrd brought" journalctl -b -k --no-pager -o cat
sha256sum -c /root/hash
[ "$(kho get token)" = sesame ]
# What was restored is in memory once.
[ "$(du -m /run/kho/carried | cut -f 1)" -lt 20 ]
[ "$(stat -c %a /run/kho/carried)" = 700 ]
clean_journal 0
image=$(kernel @OWN@)
# The next initrd is one of dracut, in which systemd runs.
dracut --quiet --no-hostonly --add systemd --drivers "virtio_pci virtio_blk ext4" --force /boot/dracut.img "${image#/boot/vmlinuz-}"
lsinitrd /boot/dracut.img > /tmp/initrd
grep -q '\.kho/carry$' /tmp/initrd
kho load --carrier initrd "$image" --initrd /boot/dracut.img --reuse-cmdline
