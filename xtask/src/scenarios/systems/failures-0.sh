# A capture that fails, as the administrator's file says: plain.
ready
dpkg -i "$KHO_FILES"/kho_0.1.0_amd64.deb
echo KHO_ON_FAILURE=plain >> /etc/default/kho
mkdir -p /srv/must /srv/extra
echo must > /srv/must/file
echo extra > /srv/extra/file
printf '%s\n' 'd /srv/must replace' 'd /srv/extra best-effort replace' > /etc/kho/keep.d/srv.conf
arm @OTHER@
mv /srv/must /srv/gone
