ready
case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
journal_says -1 "kho-capture.service: .*timed out"
journal_says -1 "NOTHING IS HANDED OVER: the capture did not come to its end"
journal_says -1 "@OTHER@.* starts without a handover"
rm -r /etc/systemd/system/kho-capture.service.d /etc/kho/keep.d/large.conf
systemctl daemon-reload
# Best-effort entries that cannot be taken do not affect others: one is absent, and one has become too large. Another
# kho that does not end does not affect them either: here it waits for its input.
[ "$(cat /srv/must/file)" = must ]
mkdir /srv/large
mount -t tmpfs -o size=90% tmpfs /srv/large
echo 'd /srv/large best-effort' > /etc/kho/keep.d/large.conf
mkfifo /run/never
cat > /etc/systemd/system/holder.service <<'END'
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/sh -c "exec kho keep --name never - <>/run/never"
END
mkdir -p /etc/systemd/system/kho-capture.service.d
printf '[Service]\nExecStop=\nExecStop=/usr/bin/kho --quiet capture --if-kexec --wait 2\n' \
	> /etc/systemd/system/kho-capture.service.d/wait.conf
systemctl daemon-reload
arm @OWN@
head -c 800M /dev/zero > /srv/large/file
systemctl start holder.service
locked
refused 54 "another kho is working" kho unload
rm -r /srv/extra
echo changed > /srv/must/file
