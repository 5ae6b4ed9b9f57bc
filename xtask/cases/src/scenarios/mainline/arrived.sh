# In a kernel that received a handover.
side in | head -1 | grep -x 'in: kho-v4'
side in | grep -x '  preserved memory: described at 0x[0-9a-f]*'
if side in | grep '^  !'; then exit 1; fi
[ "$(side in | grep -c '^  [A-Za-z_-]*: .* at 0x')" -ge 2 ]
status=0
kho validate $D/in/fdt || status=$?
[ "$status" = 62 ]
says "KHO: exec from: $KHO_RELEASE (count $KHO_HOP)"
entry in kexec-metadata | grep -F "previous_release = \"$KHO_RELEASE\""
entry in kexec-metadata | grep -x "    kexec_count = $KHO_HOP"
says "Retrieved live update data, liveupdate number: $KHO_HOP"
entry out LUO | head -1 | grep 'luo-v5'
entry out LUO | grep -x "    liveupdate_num = $((KHO_HOP + 1))"
entry in LUO | head -1 | grep 'at 0x.*, 32 B'
# Scratch is at the same place as in all earlier kernels.
kho-guest same scratch <$D/out/scratch_phys
