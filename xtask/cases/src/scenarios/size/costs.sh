# The guest's clock counts instructions as long as its processor is not idle, so everything that the commands read is in
# the page cache: each command runs once before it is counted.
mkdir -p /srv/d
kho-guest bytes $((15 << 20)) --seed 1 >/srv/d/f
kho keep /srv/d
here=/media/kernels/$KHO_HOP
next="$here/bzImage --initrd $here/initrd"
counted() {
	name=$1
	shift
	"$@" >/tmp/said
	kho-guest timed "$@" >/tmp/said
	tail -n 1 /tmp/said | kho-guest report instructions-$name
}
counted plan kho plan $next --append "$(cat /proc/cmdline)"
counted load kho load $next --append "$(cat /proc/cmdline)"
counted status kho status
counted doctor kho doctor
kho unload
