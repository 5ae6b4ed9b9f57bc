# A capture that fails, with the choice of the administrator's file: plain.
ready
dpkg -i "$KHO_FILES"/kho_0.1.0_amd64.deb
echo KHO_ON_FAILURE=plain >> /etc/default/kho
mkdir -p /srv/must /srv/extra
echo must > /srv/must/file
echo extra > /srv/extra/file
printf '%s\n' 'd /srv/must replace' 'd /srv/extra best-effort replace' > /etc/kho/keep.d/srv.conf
# A load is not armed if the shutdown has too little time to take its content.
mkdir -p /run/systemd/system/kexec.target.d
printf '[Unit]\nJobTimeoutSec=1us\n' > /run/systemd/system/kexec.target.d/time.conf
systemctl daemon-reload
refused 47 "may take 0 s (JobTimeoutSec= of kexec.target)" arm @OTHER@
rm -r /run/systemd/system/kexec.target.d
systemctl daemon-reload
arm @OTHER@
mv /srv/must /srv/gone
