#!/usr/bin/env bash
# Download fairseq's RoBERTa with its tokenizer to DIR/roberta.large (or DIR/roberta.base), for
# `fairseq-scl import-model` and `prepare --encoder`.
#
#   bash scripts/download_roberta.sh DIR [base|large]      default: large
#
# What is complete is skipped, what was cut short goes on. FAIRSEQ_SCL_DOWNLOAD_URL names a mirror of
# https://dl.fbaipublicfiles.com.
set -euo pipefail
fail() { echo "download_roberta: $1" >&2; exit "${2:-1}"; }

case ${1:-} in
  -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
  "") fail "DIR is missing (see --help)" 2 ;;
esac
name=roberta.${2:-large}
folder=$1/$name
case $name in
  roberta.base | roberta.large) ;;
  *) fail "$2: what can be downloaded is base, large" 2 ;;
esac
mirror=${FAIRSEQ_SCL_DOWNLOAD_URL:-https://dl.fbaipublicfiles.com}
[[ $mirror == http?(s)://* ]] || fail "FAIRSEQ_SCL_DOWNLOAD_URL=$mirror: it must begin with http:// or https://" 2
checksums="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783  encoder.json
1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5  vocab.bpe
2c31c5b236661067fe8626775eb995ef5fe808ac87d2ad4a6ddbef68550f5cc6  dict.txt"

is_published() { # folder, file
  (cd "$1" && grep " $2\$" <<< "$checksums" | sha256sum --check --status)
}

fetch() { # path below the mirror, file; its beginning waits as FILE.part
  local url=${mirror%/}/$1 try status code progress=--silent
  [ ! -t 2 ] || progress=--progress-bar
  for try in 1 2 3 4; do
    code=0
    status=$(curl "$progress" --fail --location --proto =http,https --connect-timeout 30 \
      --speed-limit 1 --speed-time 30 --continue-at - --write-out '%{http_code}' \
      --output "$2.part" "$url") || code=$?
    if [ $code = 0 ]; then mv "$2.part" "$2"; return; fi
    # what has arrived is all, or of another file (416), or cannot be gone on with (33)
    if [ "$status" = 416 ] || [ $code = 33 ]; then rm -f "$2.part"; continue; fi
    [[ $status != 4* ]] || break
    sleep "$try"
  done
  fail "$url cannot be fetched (HTTP status $status, curl's error $code); FAIRSEQ_SCL_DOWNLOAD_URL names a mirror"
}

if [ -e "$folder" ]; then
  [ -s "$folder/model.pt" ] || fail "$folder/model.pt is missing; move $folder away to download it"
  for file in encoder.json vocab.bpe dict.txt; do
    is_published "$folder" "$file" || fail "$folder/$file is not the published one; move $folder away to download it"
  done
  echo "$folder: complete"
  exit
fi

work=$1/.$name.part
archive=$work/$name.tar.gz
mkdir -p "$work"
for file in encoder.json vocab.bpe dict.txt; do
  [ -e "$work/$file" ] || fetch "fairseq/gpt2_bpe/$file" "$work/$file"
  is_published "$work" "$file" || { rm "$work/$file"; fail "$mirror/fairseq/gpt2_bpe/$file is not the published one"; }
done
[ -e "$archive" ] || fetch "fairseq/models/$name.tar.gz" "$archive"
# one member, to a stream: whatever else the archive holds, no name or link of it counts
if ! tar --extract --gzip --to-stdout --file "$archive" "$name/model.pt" > "$work/model.pt" 2> /dev/null ||
  [ ! -s "$work/model.pt" ]; then
  rm "$archive" "$work/model.pt"
  fail "$mirror/fairseq/models/$name.tar.gz is damaged or holds no $name/model.pt"
fi
rm "$archive"
mv "$work" "$folder"
echo "$folder: complete"
