"""Pictures of many kinds, what PIL makes of them, and what transformers' PIL processors give.

Run beside a checkout with Pillow 12, NumPy, safetensors and transformers: `python make.py`. Writes decode/*.png|jpg|webp
with decode/*.ppm (transformers' convert_to_rgb behind exif_transpose), resize/*.ppm (PIL's Image.resize of resize/source.ppm and tall.ppm),
refused*, processors.json (settings) and processors.safetensors (pixel values, `index of settings:picture`).
"""
import os
import numpy as np, zlib, struct, io
from PIL import Image, ImageOps
D=os.path.dirname(os.path.abspath(__file__))+'/'
os.makedirs(D+'decode',exist_ok=True); os.makedirs(D+'resize',exist_ok=True)
rng=np.random.default_rng(7)
def photo(h,w):
    y,x=np.mgrid[0:h,0:w].astype(np.float64)
    r=127+100*np.sin(x/5.0+y/9.0); g=127+90*np.cos(y/4.0-x/11.0); b=255*(x/w)*(y/h)
    a=np.stack([r,g,b],-1)+rng.normal(0,6,(h,w,3))
    a[h//3:h//2, w//4:w//2]=[250,10,30]
    return np.clip(a,0,255).astype(np.uint8)
def ppm(name,im):
    from transformers.image_transforms import convert_to_rgb
    Image.fromarray(convert_to_rgb(im, return_numpy=True)).save(D+name+'.ppm')
p=Image.fromarray(photo(29,43))
def expect(name,path):
    im=Image.open(path)
    ppm(name, ImageOps.exif_transpose(im))
def save(name,ext,im,**kw):
    f=D+f'decode/{name}.{ext}'; im.save(f,**kw); expect('decode/'+name,f)
save('rgb','png',p)
save('gray','png',p.convert('L'))
save('gray1','png',p.convert('1'))
save('gray_alpha','png',Image.merge('LA',[p.convert('L'),Image.fromarray(photo(29,43)[:,:,0])]))
rgba=p.convert('RGBA'); rgba.putalpha(Image.fromarray(photo(29,43)[:,:,2])); save('rgba','png',rgba)
save('palette','png',p.quantize(20))
save('palette_trns','png',p.quantize(5),transparency=3)
save('palette4','png',p.quantize(4),bits=2)
save('rgb_trns','png',p,transparency=(250,10,30))
# 16 bit rgb(a), gray-alpha and low-depth gray, interlaced: written by hand
def chunk(t,d): return struct.pack('>I',len(d))+t+d+struct.pack('>I',zlib.crc32(t+d))
def png(name,w,h,depth,color,rows,interlace=0,extra=b''):
    raw=b''.join(b'\0'+r for r in rows)
    f=D+f'decode/{name}.png'
    open(f,'wb').write(b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR',struct.pack('>IIBBBBB',w,h,depth,color,0,0,interlace))+extra+chunk(b'IDAT',zlib.compress(raw))+chunk(b'IEND',b''))
    expect('decode/'+name,f)
a16=rng.integers(0,65536,(11,13,3)).astype('>u2')
png('rgb16',13,11,16,2,[a16[i].tobytes() for i in range(11)])
a16=rng.integers(0,65536,(11,13,4)).astype('>u2')
png('rgba16',13,11,16,6,[a16[i].tobytes() for i in range(11)])
a16=rng.integers(0,65536,(11,13,2)).astype('>u2')
png('gray_alpha16',13,11,16,4,[a16[i].tobytes() for i in range(11)])
g=rng.integers(0,16,(9,7))
png('gray4',7,9,4,0,[bytes((r[i]<<4)|(r[i+1] if i+1<7 else 0) for i in range(0,7,2)) for r in g])
g=rng.integers(0,4,(9,7))
png('gray2',7,9,2,0,[bytes(sum((int(r[i+j])if i+j<7 else 0)<<(6-2*j) for j in range(4)) for i in range(0,7,4)) for r in g])
# Adam7
a=np.array(p); passes=[(0,0,8,8),(0,4,8,8),(4,0,8,4),(0,2,4,4),(2,0,4,2),(0,1,2,2),(1,0,2,1)]
rows=[]
for y0,x0,dy,dx in passes:
    s=a[y0::dy,x0::dx]
    for r in s: rows.append(r.tobytes())
png('interlaced',43,29,8,2,rows,1)
big=Image.fromarray(photo(61,83))
save('jpeg444','jpg',big,quality=92,subsampling=0)
save('jpeg420','jpg',big,quality=80,subsampling=2)
save('jpeg_progressive','jpg',big,quality=85,subsampling=2,progressive=True)
save('jpeg_gray','jpg',big.convert('L'),quality=90)
for o in range(2,9):
    ex=Image.Exif(); ex[0x0112]=o
    if o in (6,): save(f'jpeg_orientation{o}','jpg',p,quality=95,subsampling=0,exif=ex.tobytes())
    save(f'png_orientation{o}','png',Image.fromarray(photo(3,5)),exif=ex.tobytes())
save('webp_lossless','webp',p,lossless=True)
save('webp_alpha','webp',rgba,lossless=True,exact=True)
save('webp_lossy','webp',big,quality=80)
# refused
Image.fromarray(rng.integers(0,65536,(5,6)).astype(np.uint16)).save(D+'refused_gray16.png')
p.resize((12,8)).convert('CMYK').save(D+'refused_cmyk.jpg')
p.resize((12,8)).save(D+'refused_animated.webp',save_all=True,append_images=[p.resize((12,8)).rotate(180)],lossless=True)
p.resize((12,8)).save(D+'refused.gif'); 
src=Image.fromarray(photo(37,53)); ppm('resize/source',src)
for f,n in [(0,'nearest'),(1,'lanczos'),(2,'bilinear'),(3,'bicubic'),(4,'box'),(5,'hamming')]:
    for h,w in [(16,16),(37,20),(90,53),(64,101),(1,1),(5,200)]:
        ppm(f'resize/{n}_{h}x{w}', src.resize((w,h),resample=f))
# Above 100 times as high as wide, PIL resamples rows first where they become fewer.
tall=Image.fromarray(np.random.default_rng(8).integers(0,256,(201,2,3)).astype(np.uint8)); ppm('resize/tall',tall)
for f,n in [(0,'nearest'),(1,'lanczos'),(3,'bicubic')]:
    for h,w in [(16,16),(201,5),(230,3)]:
        ppm(f'resize/tall_{n}_{h}x{w}', tall.resize((w,h),resample=f))
import json
from safetensors.numpy import save_file
import transformers
def get(n):
    for m in [n+'Pil', n]:
        if hasattr(transformers, m):
            try: return getattr(transformers, m)
            except Exception as e: print(m,e)
src={n: D+n for n in ['decode/rgba.png','decode/palette.png','decode/gray.png','decode/webp_lossless.webp']}
src['resize/source.ppm']=D+'resize/source.ppm'
cases=[('ViTImageProcessor',dict(size={'height':24,'width':20},do_convert_rgb=True)),
('ViTImageProcessor',dict(size={'height':24,'width':24},resample=3,do_convert_rgb=True,image_mean=[0.485,0.456,0.406],image_std=[0.229,0.224,0.225])),
('CLIPImageProcessor',dict(size={'shortest_edge':24},crop_size={'height':24,'width':24})),
('CLIPImageProcessor',dict(size=20,crop_size=23)),
('CLIPImageProcessor',dict(size={'shortest_edge':31},crop_size={'height':18,'width':40},do_normalize=False)),
('CLIPImageProcessor',dict(do_resize=False,crop_size={'height':40,'width':22},do_rescale=True,rescale_factor=0.01)),
('BlipImageProcessor',dict(size={'height':16,'width':18})),
('BlipImageProcessor',dict(size={'height':16,'width':18},do_rescale=False,do_normalize=False,resample=1)),
]
out={}; meta=[]
for i,(n,kw) in enumerate(cases):
    P=get(n)
    p=P(**kw)
    cfg={'image_processor_type':n, **kw}
    meta.append(cfg)
    for name,path in src.items():
        im=Image.open(path)
        v=p(im,return_tensors='np')['pixel_values']
        out[f'{i}:{name}']=np.ascontiguousarray(v[0]).astype(np.float32)
save_file(out,D+'processors.safetensors'); json.dump(meta,open(D+'processors.json','w'),indent=1)
