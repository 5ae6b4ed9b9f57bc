ready
case $KHO_RELEASE in @OTHER@.*) ;; *) echo "this is $KHO_RELEASE"; exit 1 ;; esac
says "nothing: this was an ordinary boot" kho status
journal_says -1 "NOTHING IS HANDED OVER: .*/srv/must does not exist"
journal_says -1 "kho: @OTHER@.* starts without a handover"
says "NOTHING IS HANDED OVER" journalctl -b -1 -k --no-pager
journal_says -1 "kho-capture.service: .*status=31"
journal_says 0 "/srv/must does not exist: kho load refuses until"
clean_journal 0
# The option given when arming takes precedence over the file: cold. The capture does not begin: another process holds
# the lock, and the unit's time is up before the capture stops waiting. The remaining steps have more time than that.
mv /srv/gone /srv/must
cat > /etc/systemd/system/holder.service <<'END'
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/usr/bin/flock /run/kho/lock sleep infinity
END
mkdir -p /etc/systemd/system/kho-capture.service.d
printf '[Service]\nTimeoutStopSec=3s\n' > /etc/systemd/system/kho-capture.service.d/time.conf
systemctl daemon-reload
arm @OTHER@ --on-failure cold
systemctl start holder.service
locked
refused 54 "another kho is working" kho unload
