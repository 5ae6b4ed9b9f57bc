# Bad input: every check is a command, the exit status that it must have, words that it must print, and the proof that
# it changed nothing.

checks=0
failures=0

# All state that a refused command must leave alone: the loaded image, kho's own files, the knobs that a load turns, and
# the trees in $watch.
watch=
fingerprint() {
	cat /sys/kernel/kexec_loaded /run/kho/*.json 2>/dev/null || true
	ls -lni /run/kho/blobs 2>/dev/null || true
	grep HugePages_Total /proc/meminfo
	[ -n "$watch" ] || return 0
	# A stage that was made and removed changes the time of its directory.
	find $watch -type d -exec stat -c '%n %F %a %u %i' {} + | sort
	find $watch ! -type d -exec stat -c '%n %F %a %u %s %Y %i' {} + | sort
	# Hash small files only: under emulation, hashing large ones would take longer than the rest of the test.
	find $watch -type f -size -64k -exec sha256sum {} + | sort
}

wrong() {
	failures=$((failures + 1))
	echo "WRONG: $*"
}

# expect 'STATUS|STATUS' 'REGEX' -- COMMAND…: a check as above. Standard error of COMMAND must match REGEX.
expect() {
	local want=$1 say=$2 got=0
	shift 3
	fingerprint >/tmp/before
	"$@" >/tmp/out 2>/tmp/err || got=$?
	fingerprint >/tmp/after
	checks=$((checks + 1))
	echo "check $checks: [$got] $* | $(head -n 2 /tmp/err | cut -c 1-400 | tr '\n' ' ')"
	case "|$want|" in
	*"|$got|"*) ;;
	*) wrong "exit status $got, expected $want: $*" ;;
	esac
	[ "$want" = 0 ] || [ -s /tmp/err ] || wrong "says nothing: $*"
	grep -Eq -e "$say" /tmp/err || wrong "does not say $say: $*"
	[ "$want" = 0 ] || cmp -s /tmp/before /tmp/after || {
		wrong "changed something: $*"
		diff /tmp/before /tmp/after || true
	}
}

# Checks that the loaded image is still the one that kho loaded.
still_ours() {
	checks=$((checks + 1))
	kho status --json >/tmp/status || wrong "kho status: $?"
	grep -q '"by": "kho"' /tmp/status || wrong "the image is no longer armed and ours: $(cat /tmp/status)"
	echo "check $checks: still armed and ours"
}

# holds COMMAND…: COMMAND must succeed.
holds() {
	checks=$((checks + 1))
	"$@" >/tmp/out 2>&1 || {
		wrong "does not hold: $*"
		cat /tmp/out
	}
	echo "check $checks: $*"
}

# fails COMMAND…: COMMAND must fail.
fails() {
	checks=$((checks + 1))
	if "$@" >/tmp/out 2>&1; then
		wrong "succeeds: $*"
		cat /tmp/out
	fi
	echo "check $checks: not: $*"
}

# A user without privileges.
echo nobody:x:65534:65534::/tmp:/bin/sh >>/etc/passwd
nobody() {
	su nobody -c "PATH=$PATH; $*"
}

# Checks that this user can read nothing that was handed over.
closed_to_nobody() {
	[ "$(nobody id -u)" = 65534 ]
	fails nobody ls /sys/kernel/boot_params/setup_data
	node=$(ls -d /sys/kernel/boot_params/setup_data/0)
	fails nobody cat "$node/data"
	fails nobody cat "$node/type"
	fails nobody 'head -c 4096 /proc/kcore'
	fails nobody 'head -c 8 /proc/kpageflags'
	fails nobody ls /run/kho
	expect 10 'root' -- nobody kho dump
	expect 10 'root' -- nobody kho get token
	expect 10 'root' -- nobody kho restore --into /tmp
}

finish() {
	echo "$checks checks, $failures wrong"
	[ "$failures" = 0 ]
}
