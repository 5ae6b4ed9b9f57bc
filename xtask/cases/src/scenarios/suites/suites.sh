# Each suite on both file systems. $seeds, $operations, $large and $megabytes set the extent of fsx and fio.
foreign
export NO_COLOR=1
cat >>/etc/passwd <<END
nobody:x:65534:65534::/tmp:/bin/sh
games:x:5:60::/tmp:/bin/sh
END
printf 'nogroup:x:65534:\ngames:x:60:\n' >>/etc/group
mkdir -p /khofs /tmpfs /second
mount -t khofs none /khofs -o size=256m,mode=1777
mount -t tmpfs none /tmpfs -o size=256m,mode=1777
mount -t tmpfs none /second

# result SUITE FILESYSTEM TEST COMMAND…: prints the result of COMMAND.
result() {
	where="$1 $2 $3"
	shift 3
	if "$@" >/tmp/output 2>&1; then
		echo "@suite $where ok"
	else
		tail -n 20 /tmp/output
		echo "@suite $where failed"
	fi
}
used() {
	df -k "/$1" | awk 'END { print $3 }'
}

cat >/tmp/pjdfstest.toml <<END
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = true
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
END

sed 's/^naptime = .*/naptime = 1/' /tmp/pjdfstest.toml >/tmp/patient.toml

cat >/tmp/all.toml <<END
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 10
fsync = 1
fdatasync = 1
posix_fallocate = 5
punch_hole = 5
sendfile = 5
posix_fadvise = 1
copy_file_range = 5
END
{ printf 'flen = 6291456\n[opsize]\nmax = 524288\n'; cat /tmp/all.toml; } >/tmp/large.toml
# If sizes are aligned, fsx calls posix_fallocate with a length of 0, and takes the refusal for an error.
{ printf 'flen = 8388608\n[opsize]\nmax = 1048576\nalign = 4096\n'; grep -v posix_fallocate /tmp/all.toml; } >/tmp/pages.toml

fio_job() {
	fs=$1
	name=$2
	shift 2
	# Buffers that repeat one byte would not show misplaced data.
	result fio "$fs" "$name" fio --name="$name" --directory="/$fs" --size="${megabytes}m" --thread --minimal \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 --randseed=1 "$@"
	rm -f "/$fs"/*
}

for fs in tmpfs khofs; do
	free=$(used $fs)
	pjdfstest -c /tmp/pjdfstest.toml -p /$fs -s /second >/tmp/pjdfstest 2>&1 || true
	# Some tests give a child a moment to begin: on a busy machine the child needs longer, so run failed tests
	# again.
	failed=$(awk '$2 == "FAILED" { print "pjdfstest::tests::" $1 }' /tmp/pjdfstest)
	: >/tmp/again
	[ -z "$failed" ] || pjdfstest -e -c /tmp/patient.toml -p /$fs -s /second $failed >/tmp/again 2>&1 || true
	grep -v FAILED /tmp/pjdfstest >/tmp/once
	awk -v fs=$fs '/^[a-z_0-9:]+ +(ok|FAILED|skipped)$/ { print "@suite pjdfstest", fs, $1, tolower($2); next }
		/^\t/ && !/^\tat / { print }' /tmp/once /tmp/again
	for seed in $seeds; do
		result fsx $fs bytes-$seed fsx -q -f /tmp/all.toml -N $operations -S $seed -P /tmp /$fs/fsx
		result fsx $fs large-$seed fsx -q -f /tmp/large.toml -N $large -S $seed -P /tmp /$fs/fsx
		result fsx $fs pages-$seed fsx -q -f /tmp/pages.toml -N $large -S $seed -P /tmp /$fs/fsx
	done
	rm -f /$fs/fsx*
	fio_job $fs write-psync --rw=write --bs=64k --ioengine=psync
	fio_job $fs randwrite-psync --rw=randwrite --bs=4k --ioengine=psync
	fio_job $fs odd-sizes --rw=randwrite --bsrange=512-128k --bs_unaligned=1 --ioengine=psync
	fio_job $fs randrw-pvsync2 --rw=randrw --bs=16k --ioengine=pvsync2
	fio_job $fs mmap --rw=randwrite --bs=4k --ioengine=mmap
	fio_job $fs libaio --rw=randwrite --bs=8k --ioengine=libaio --iodepth=8
	fio_job $fs io_uring --rw=randwrite --bs=8k --ioengine=io_uring --iodepth=8
	fio_job $fs direct --rw=randwrite --bs=4k --ioengine=psync --direct=1
	fio_job $fs two-jobs --rw=randwrite --bs=4k --ioengine=psync --numjobs=2 --group_reporting
	fio_job $fs fallocated --rw=randwrite --bs=4k --ioengine=psync --fallocate=posix
	fio_job $fs verified-while-written --rw=randwrite --bs=4k --ioengine=psync --verify_backlog=64
	left=$(find /$fs -mindepth 1 | head -n 5)
	result afterwards $fs nothing-left test -z "$left"
	result afterwards $fs blocks-given-back test "$(used $fs)" = "$free"
done
[ "$(stat -f -c %T /khofs)" != "$(stat -f -c %T /tmpfs)" ]
