ready
# The firmware started the machine's own first kernel.
case $KHO_RELEASE in @OWN@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
journal_says -1 "kho-capture.service: .*timed out"
journal_says -1 "NOTHING IS HANDED OVER: the capture did not come to its end"
journal_says -1 "nothing is loaded, so the machine reboots through its firmware"
clean_journal 0
# The unit kills a capture that hangs when its time is up, and does what the administrator chose.
mount -t tmpfs -o size=300M tmpfs /mnt
kho-guest bytes 209715200 > /mnt/large
echo 'd /mnt' > /etc/kho/keep.d/large.conf
cat > /usr/local/sbin/hanging-capture <<'END'
#!/bin/sh
/usr/bin/kho --quiet capture --if-kexec &
until test "$(cat /sys/kernel/kexec_loaded)" = 0; do sleep 0.1; done
kill -STOP $!
wait
END
chmod 755 /usr/local/sbin/hanging-capture
printf '[Service]\nTimeoutStopSec=20s\nExecStop=\nExecStop=/usr/local/sbin/hanging-capture\n' \
	> /etc/systemd/system/kho-capture.service.d/time.conf
systemctl daemon-reload
arm @OTHER@
