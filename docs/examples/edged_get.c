/* Reads one record, or lists a collection, from an edged replica on disk: docs/replica.md in C.
 *
 *   cc -O2 -o edged_get edged_get.c -lzstd          (or the path of libzstd.so.1; no header is needed)
 *   ./edged_get /var/lib/edged/catalog titles 1994/Pulp_Fiction     the record's CBOR on stdout; exit 1 if missing
 *   ./edged_get /var/lib/edged/catalog titles                       all keys in order, one a line
 *
 * Checks the CRC-32 of every page of every pack when it opens it, and relies on zstd for those of the values. A
 * program that keeps running would map `counter` (8 bytes) and open the manifest anew when the number in it changes.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
/* What is used of libzstd; its ABI is stable since 1.3. */
extern void *ZSTD_createDCtx(void);
extern size_t ZSTD_decompress_usingDict(void *, void *, size_t, const void *, size_t, const void *, size_t);
extern unsigned ZSTD_isError(size_t);
extern unsigned long long ZSTD_getFrameContentSize(const void *, size_t);

#define PAGE 4096u
#define MAX_VALUE (4u << 20)
#define MAX_LAYERS 4096
typedef struct { const uint8_t *at, *end; } cursor; /* a run of CBOR */
typedef struct { const uint8_t *data; size_t size; } file;
typedef struct { uint64_t number; file whole, dictionary; } remote;
typedef struct {
    const uint8_t *data;                                             /* the pack's first byte */
    const uint8_t *offs, *hash;                                      /* sections; hash may be NULL */
    uint32_t count, slots, bits, low, high;                          /* low, high: the collection's entries */
    file dictionary;
    remote *remotes;
    size_t remote_count;
    int rank;                                                        /* higher shadows lower, within a slice */
    uint32_t place;                                                  /* of the walk that lists keys */
} pack;

static char root[4096];
static pack packs[MAX_LAYERS];
static size_t pack_count;

static void fail(const char *what, const char *where) {
    fprintf(stderr, "edged_get: %s: %s\n", where, what);
    exit(3);
}
static uint32_t u16(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8; }
static uint32_t u32(const uint8_t *p) { return u16(p) | u16(p + 2) << 16; }
static uint64_t u64(const uint8_t *p) { return u32(p) | (uint64_t)u32(p + 4) << 32; }
static uint32_t crc32(uint32_t seed, const uint8_t *p, size_t size) {          /* IEEE 802.3, as zlib's */
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t n = 0; n < 256; n++) {
            table[n] = n;
            for (int k = 0; k < 8; k++) table[n] = table[n] & 1 ? 0xedb88320u ^ table[n] >> 1 : table[n] >> 1;
        }
    uint32_t c = ~seed;
    while (size--) c = table[(c ^ *p++) & 255] ^ c >> 8;
    return ~c;
}
static file map(const char *name) {
    char path[8192];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", root, name);
    int handle = open(path, O_RDONLY | O_CLOEXEC);
    if (handle < 0 || fstat(handle, &st) || !st.st_size) fail("cannot be opened", path);
    file found = {mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, handle, 0), st.st_size};
    if (close(handle) || found.data == MAP_FAILED) fail("cannot be mapped", path);
    return found;
}
static file numbered(uint64_t number) {
    char name[64];
    snprintf(name, sizeof name, "packs/%08llx.pack", (unsigned long long)number);
    return map(name);
}

/* CBOR: deterministic, definite lengths only. `head` reads a type and its number, `skip` a whole item. */
static unsigned head(cursor *c, uint64_t *number) {
    if (c->at >= c->end) fail("cut short", "CBOR");
    unsigned first = *c->at++, info = first & 31, size = info < 24 ? 0 : info < 28 ? 1u << (info - 24) : 99;
    if (size > 8 || (size_t)(c->end - c->at) < size) fail("not well-formed", "CBOR");
    *number = info;
    if (size) for (*number = 0; size; size--) *number = *number << 8 | *c->at++;
    return first >> 5;
}
static uint64_t expect(cursor *c, unsigned type) {
    uint64_t number;
    return head(c, &number) == type ? number : (fail("another kind of item than expected", "CBOR"), 0);
}
static file bytes(cursor *c, unsigned type) {                        /* type 2: bytes, 3: text */
    uint64_t size = expect(c, type);
    if (size > (size_t)(c->end - c->at)) fail("cut short", "CBOR");
    file found = {c->at, size};
    c->at += size;
    return found;
}
static void skip(cursor *c) {
    uint64_t number;
    unsigned type = head(c, &number);
    if ((type == 2 || type == 3) && number > (size_t)(c->end - c->at)) fail("cut short", "CBOR");
    if (type == 2 || type == 3)
        c->at += number;
    else if (type == 4 || type == 5)
        for (uint64_t n = type == 5 ? 2 * number : number; n; n--) skip(c);
}
static cursor member(cursor map_at, uint64_t key) {                  /* the value of an integer key of a map */
    for (uint64_t n = expect(&map_at, 5); n; n--, skip(&map_at))
        if (expect(&map_at, 0) == key) return map_at;
    fail("a field is missing", "CBOR");
    return map_at;
}
static file dictionary_named(file sha256) {
    char name[96] = "packs/";
    if (!sha256.size) return (file){NULL, 0};
    if (sha256.size != 32) fail("not a SHA-256", "dictionary");
    for (size_t n = 0; n < 32; n++) sprintf(name + 6 + 2 * n, "%02x", sha256.data[n]);
    strcat(name, ".dict");
    return map(name);
}
static const uint8_t *section(const uint8_t *data, const char *tag, uint32_t *size) {
    for (uint32_t n = 0; n < u16(data + 10); n++) {
        const uint8_t *entry = data + 16 + 12 * n;
        *size = u32(entry + 8);
        if (!memcmp(entry, tag, 4)) return data + u32(entry + 4);
    }
    return *size = 0, NULL;
}
static void open_pack(uint64_t number, uint64_t offset, uint64_t size, uint32_t crc, int rank, const char *collection) {
    file whole = numbered(number);
    uint32_t length, first = 0;
    if (offset + size > whole.size || size < 32) fail("cut short", "pack");
    const uint8_t *data = whole.data + offset;
    uint32_t header = 16 + 12 * u16(data + 10) + 4;
    if (memcmp(data, "\x89" "EDGPK\r\n", 8) || u16(data + 8) != 1 || u32(data + 12) != size || header > size)
        fail("not a pack of format 1", "pack");
    const uint8_t *crcs = section(data, "crcs", &length);
    if (!crcs || crc32(crc32(0, data, header - 4), crcs, length) != u32(data + header - 4) || u32(data + header - 4) != crc)
        fail("the checksum of its header does not hold", "pack");
    for (uint32_t at = header, n = 0, end = crcs - data; at < end; at = first, n++) {
        first = (at | (PAGE - 1)) + 1 < end ? (at | (PAGE - 1)) + 1 : end;
        if (crc32(0, data + at, first - at) != u32(crcs + 4 * n)) fail("the checksum of a page does not hold", "pack");
    }
    pack *p = &packs[pack_count];
    if (pack_count == MAX_LAYERS) fail("too many packs", "manifest");
    memset(p, 0, sizeof *p);
    p->data = data;
    p->rank = rank;
    const uint8_t *meta = section(data, "meta", &length);
    cursor c = {meta, meta + length}, at = member(c, 2);
    p->dictionary = dictionary_named(bytes(&at, 2));
    at = member(c, 3);
    p->count = expect(&at, 0);
    at = member(c, 4);
    for (uint64_t n = expect(&at, 4); n; n--) {                      /* [collection, low, high, tombstones] */
        expect(&at, 4);
        file name = bytes(&at, 3);
        uint32_t low = expect(&at, 0), high = expect(&at, 0);
        expect(&at, 0);
        if (name.size == strlen(collection) && !memcmp(name.data, collection, name.size)) p->low = low, p->high = high;
    }
    at = member(c, 7);
    p->remote_count = expect(&at, 4);
    p->remotes = calloc(p->remote_count + 1, sizeof *p->remotes);
    for (size_t n = 0; n < p->remote_count; n++) {                   /* [file number, dictionary] */
        expect(&at, 4);
        p->remotes[n].number = expect(&at, 0);
        p->remotes[n].dictionary = dictionary_named(bytes(&at, 2));
    }
    p->offs = section(data, "offs", &length);
    p->hash = section(data, "hash", &length);
    p->slots = length / 4;
    while (p->count >> p->bits) p->bits++;
    p->place = p->low;
    if (p->low < p->high) pack_count++;
}
static file key_of(const pack *p, uint32_t place) {
    const uint8_t *entry = p->data + u32(p->offs + 4 * place);
    return (file){entry + 2, u16(entry)};
}
static int compare(file one, file other) {
    int order = memcmp(one.data, other.data, one.size < other.size ? one.size : other.size);
    return order ? order : (one.size > other.size) - (one.size < other.size);
}
static int64_t find(const pack *p, const char *collection, file key) {
    if (!p->hash) {                                                  /* few entries: bisect */
        uint32_t low = p->low, high = p->high;
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            if (compare(key_of(p, middle), key) < 0) low = middle + 1; else high = middle;
        }
        return low < p->high && !compare(key_of(p, low), key) ? (int64_t)low : -1;
    }
    uint8_t size[2] = {key.size & 255, key.size >> 8};
    uint32_t value = crc32(crc32(crc32(0, (const uint8_t *)collection, strlen(collection)), size, 2), key.data, key.size);
    for (uint32_t slot = value % p->slots, found; (found = u32(p->hash + 4 * slot)); slot = (slot + 1) % p->slots)
        if (found >> p->bits == value >> p->bits) {
            uint32_t place = (found & ((1u << p->bits) - 1)) - 1;
            if (place >= p->low && place < p->high && !compare(key_of(p, place), key)) return place;
        }
    return -1;
}
static file frame_of(const pack *p, uint32_t place, file *dictionary) {      /* an empty one is a tombstone */
    file key = key_of(p, place);
    const uint8_t *start = key.data + key.size, *end = p->data + u32(p->offs + 4 * place + 4);
    *dictionary = p->dictionary;
    if (start < end && *start & 8) {                                 /* 0x18, u16 place in remotes, u32 from, u32 to */
        if (end - start != 11 || u16(start + 1) >= p->remote_count) fail("a pointer is damaged", "pack");
        remote *r = &p->remotes[u16(start + 1)];
        if (!r->whole.data) r->whole = numbered(r->number);
        if (u32(start + 3) > u32(start + 7) || u32(start + 7) > r->whole.size) fail("a pointer is damaged", "pack");
        *dictionary = r->dictionary;
        return (file){r->whole.data + u32(start + 3), u32(start + 7) - u32(start + 3)};
    }
    return (file){start, end - start};
}
static void print_value(file frame, file dictionary) {
    uint8_t *whole = malloc(frame.size + 4), *value;
    memcpy(whole, "\x28\xb5\x2f\xfd", 4);                            /* frames are stored without their magic number */
    memcpy(whole + 4, frame.data, frame.size);
    unsigned long long size = ZSTD_getFrameContentSize(whole, frame.size + 4);
    if (size > MAX_VALUE) fail("a value is damaged", "pack");
    value = malloc(size + 1);
    size_t got = ZSTD_decompress_usingDict(
        ZSTD_createDCtx(), value, size, whole, frame.size + 4, dictionary.data, dictionary.size);
    if (ZSTD_isError(got) || got != size) fail("a value is damaged", "pack");
    fwrite(value, 1, size, stdout);
}
static cursor hidden;                                                /* taken-down [collection, key, version] */

static void open_settings(cursor at) {                               /* null, or [number, size, CRC-32] */
    if (at.at < at.end && *at.at == 0xf6) return;
    expect(&at, 4);
    file whole = numbered(expect(&at, 0));
    if (whole.size != expect(&at, 0) || crc32(0, whole.data, whole.size) != expect(&at, 0))
        fail("the checksum does not hold", "settings");
    hidden = member((cursor){whole.data, whole.data + whole.size}, 4);
}
static int is_hidden(const char *collection, file key) {
    cursor at = hidden;
    for (uint64_t n = at.at ? expect(&at, 4) : 0; n; n--) {
        expect(&at, 4);
        file one = bytes(&at, 3), other = bytes(&at, 3);
        expect(&at, 0);
        if (!compare(one, (file){(const uint8_t *)collection, strlen(collection)}) && !compare(other, key)) return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 4) return fprintf(stderr, "usage: edged_get REPLICA/DATASET COLLECTION [KEY]\n"), 2;
    snprintf(root, sizeof root, "%s", argv[1]);
    file whole = map("manifest");
    const uint8_t *d = whole.data;
    if (whole.size < 32 || memcmp(d, "\x89" "EDGMF\r\n", 8) || u16(d + 8) != 3 || crc32(0, d, 28) != u32(d + 28)
        || u64(d + 16) + u32(d + 12) > whole.size || crc32(0, d + u64(d + 16), u32(d + 12)) != u32(d + 24))
        fail("not a whole manifest of format 3", "manifest");
    cursor c = {d + u64(d + 16), d + u64(d + 16) + u32(d + 12)}, at = member(c, 11);
    open_settings(member(c, 6));
    int rank = 1;
    for (uint64_t slices = expect(&at, 5); slices; slices--) {
        skip(&at);                                                   /* the slice's name */
        expect(&at, 4);
        for (int n = 0; n < 6; n++) skip(&at);                       /* version … counts */
        rank += MAX_LAYERS;                                          /* any slice's record will do */
        for (int layer = 0; layer < 3; layer++)                      /* base, middle, fresh, each newest last */
            for (uint64_t n = expect(&at, 4); n; n--) {
                uint64_t place[4], fields = expect(&at, 4);
                for (int f = 0; f < 4; f++) place[f] = expect(&at, 0);
                if (fields > 4) skip(&at);                           /* its index file */
                open_pack(place[0], place[1], place[2], place[3], layer ? ++rank : rank, argv[2]);
            }
        for (int n = 0; n < 3; n++) skip(&at);                       /* remotes, purged, cut */
    }
    file dictionary, last = {NULL, 0};
    for (;;) {                                                       /* one round without end, or a round a key */
        file key = argc == 4 ? (file){(const uint8_t *)argv[3], strlen(argv[3])} : (file){NULL, 0};
        for (size_t n = 0; argc == 3 && n < pack_count; n++) {       /* the least key not yet listed */
            pack *p = &packs[n];
            while (p->place < p->high && last.data && compare(key_of(p, p->place), last) <= 0) p->place++;
            if (p->place < p->high && (!key.data || compare(key_of(p, p->place), key) < 0)) key = key_of(p, p->place);
        }
        if (!key.data) return 0;
        for (size_t n = is_hidden(argv[2], key) ? 0 : pack_count; n--;) {                          /* newest first; a tombstone ends its slice */
            int64_t place = find(&packs[n], argv[2], key);
            if (place < 0) continue;
            file frame = frame_of(&packs[n], place, &dictionary);
            if (frame.size && argc == 4) return print_value(frame, dictionary), 0;
            if (frame.size) {
                printf("%.*s\n", (int)key.size, key.data);
                break;
            }
            while (n && packs[n - 1].rank / MAX_LAYERS == packs[n].rank / MAX_LAYERS) n--;
        }
        if (argc == 4) return 1;
        last = key;
    }
}
