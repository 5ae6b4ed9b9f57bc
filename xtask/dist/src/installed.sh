# kho-dkms on a system with the headers of every kernel and without Rust: builds for each, upgrades, and purges
# completely.
if command -v rustc cargo; then
	echo "there is a Rust here"
	exit 1
fi
cd /lib/modules
kernels=$(ls)
built() {
	for kernel in $kernels; do
		dkms status -m kho -v "$1" -k "$kernel" | grep -q ": installed" || {
			dkms status
			cat /var/lib/dkms/kho/*/build/make.log
			exit 1
		}
		for module in kho khofs; do
			file=$(ls /lib/modules/"$kernel"/updates/dkms/$module.ko*)
			case $(modinfo -F vermagic "$file") in "$kernel "*) ;; *) exit 1 ;; esac
			case $(modinfo -F license "$file") in GPL*) ;; *) exit 1 ;; esac
		done
	done
}
dpkg -i /mnt/kho-dkms_0.1.0_amd64.deb
built 0.1.0
if grep -iE 'warning|objtool' /var/lib/dkms/kho/*/*/*/log/make.log; then exit 1; fi
# For guests, which have no compiler.
tar -C / -cf /mnt/out/modules.tar $(cd / && ls -d usr/lib/modules/*/updates/dkms)
# A driver of others, built by dkms against what is installed, as the page for driver authors says.
# The system of the test installs no documents.
dpkg-deb -x /mnt/kho-dkms_0.1.0_amd64.deb /tmp/package
examples=/tmp/package/usr/share/doc/kho-dkms/examples
mkdir /usr/src/my-driver-1.0
cp $examples/outside/* $examples/kho_ring.c /usr/src/my-driver-1.0/
dkms add -m my-driver -v 1.0
for kernel in $kernels; do
	dkms install -m my-driver -v 1.0 -k "$kernel" || {
		cat /var/lib/dkms/my-driver/1.0/build/make.log
		exit 1
	}
	file=$(ls /lib/modules/"$kernel"/updates/dkms/kho_ring.ko*)
	[ "$(modinfo -F depends "$file")" = kho ]
	case $(modinfo -F vermagic "$file") in "$kernel "*) ;; *) exit 1 ;; esac
done
if grep -iE 'warning|undefined' /var/lib/dkms/my-driver/1.0/*/*/log/make.log; then exit 1; fi
dkms remove -m my-driver -v 1.0 --all
rm -rf /usr/src/my-driver-1.0 /var/lib/dkms/my-driver
dpkg -i /mnt/kho-dkms_0.1.0+later_amd64.deb
built 0.1.0+later
[ -z "$(dkms status -m kho -v 0.1.0)" ]
for kernel in $kernels; do echo "built for $kernel"; done
dpkg -P kho-dkms
left=$(find /lib/modules /usr/src /var/lib/dkms /usr/share/doc -name '*kho*' ! -path '/usr/src/linux-headers-*')
[ -z "$left" ] || { echo "left: $left"; exit 1; }
