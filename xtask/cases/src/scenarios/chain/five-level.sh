grep -qw la57 /proc/cpuinfo
check_tree_and_blob
KHO_NEXT_CMDLINE="$KHO_NEXT_CMDLINE note=gr$(printf '\374')n"
load
kho-guest loaded
