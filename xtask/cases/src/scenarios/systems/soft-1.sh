# The same kernel: still armed. A tmpfs is empty, and the path of keep.d on it left the list until it exists again.
ready
rm /run/guest-leave
case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
[ "$(systemctl show -p SoftRebootsCount --value)" = 1 ]
test -s /run/kho/armed
[ "$(cat /sys/kernel/kexec_loaded)" = 1 ]
says "is armed" kho status
[ -z "$(ls /srv/ram)" ]
kho status
says "keep.d:srv-files" kho status
says "run-hand" kho status
fails grep -q "keep.d:srv-ram-late" /tmp/said
clean_journal 0
mkdir /srv/ram/late
echo late > /srv/ram/late/file
