ready
# The firmware started the machine's own first kernel.
case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
journal_says -1 "NOTHING IS HANDED OVER: .*/srv/must does not exist"
journal_says -1 "nothing is loaded, so the machine reboots through its firmware"
clean_journal 0
# A capture that is not finished in its time: the unit kills it, and what was chosen happens.
mv /srv/gone /srv/must
mount -t tmpfs -o size=400M tmpfs /mnt
kho-guest bytes 314572800 > /mnt/large
echo 'd /mnt' > /etc/kho/keep.d/large.conf
mkdir -p /etc/systemd/system/kho-capture.service.d
printf '[Service]\nTimeoutStopSec=2s\n' > /etc/systemd/system/kho-capture.service.d/time.conf
systemctl daemon-reload
arm @OTHER@
